"""Recordings to batches: corpora, shards, streaming, the decode-once cache, the built-in corpus.

The name is also that of a public package (Hugging Face's). Keep this a regular package: `SCENETUNE` below is
how `trainables` notices that the other one was imported in its place.
"""

SCENETUNE = True
