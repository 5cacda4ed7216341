"""Corpora as their makers lay them out, read into one form: which files, which split, which labels.

One file a corpus; each has a `read_…` function that gives a `Corpus`. A new one needs such a file
and a command in datasets/prepare.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from datasets.corpora import jssed, tau2019, tut2018
from datasets.corpora.audioset import TrainingLists, read_audioset
from datasets.corpora.audioset_strong import TestList, read_audioset_strong
from datasets.corpora.corpus import UNKNOWN, About, Corpus, Recording, Validation
from datasets.corpora.dcase2013 import Classes2013, read_dcase2013
from datasets.corpora.fsdkaggle2019 import TrainingPart, read_fsdkaggle2019
from datasets.corpora.imoto import read_imoto
from datasets.corpora.jssed import read_jssed
from datasets.corpora.listing import read_listing
from datasets.corpora.tau2019 import read_tau2019
from datasets.corpora.tau_like import read_tau_like
from datasets.corpora.tut2018 import read_tut2018
from datasets.corpora.tut_as import read_tut_as
from datasets.corpora.tut_sed import read_tut_sed

# Corpora that may have been brought into TAU2019's layout, by the name that --corpus gives them.
ABOUT: Mapping[str, About] = {
    "tau2019": tau2019.ABOUT,
    "tut2018": tut2018.ABOUT,
    "jssed": jssed.ABOUT,
}

__all__ = [
    "ABOUT",
    "UNKNOWN",
    "About",
    "Classes2013",
    "Corpus",
    "Recording",
    "TestList",
    "TrainingLists",
    "TrainingPart",
    "Validation",
    "read_audioset",
    "read_audioset_strong",
    "read_dcase2013",
    "read_fsdkaggle2019",
    "read_imoto",
    "read_jssed",
    "read_listing",
    "read_tau2019",
    "read_tau_like",
    "read_tut2018",
    "read_tut_as",
    "read_tut_sed",
]
