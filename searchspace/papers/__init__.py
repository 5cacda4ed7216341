"""The papers' tables as data, one file a paper, in the knobs of its family. They import no torch."""
