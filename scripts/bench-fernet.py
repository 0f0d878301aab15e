"""Seals or opens one file with Fernet, for `scripts/bench seal`: the counterpart of the vault's seal_bench example.

usage: bench-fernet.py seal|open PLAIN TOKEN     prints SECONDS PEAK_RSS_KIB

Like the vault, sealing reads the plain file and leaves a file that is flushed to disk under its final name, and
opening leaves the plaintext in memory. Fernet has no streaming form, so each file is one token.
"""

import os
import resource
import sys
import time

from cryptography.fernet import Fernet

KEY = b"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="


def seal(plain, token):
    with open(plain, "rb") as file:
        sealed = Fernet(KEY).encrypt(file.read())
    with open(token + ".partial", "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())
    os.rename(token + ".partial", token)


def open_token(plain, token):
    with open(token, "rb") as file:
        opened = Fernet(KEY).decrypt(file.read())
    assert len(opened) == os.path.getsize(plain)


def main():
    verb, plain, token = sys.argv[1:]
    start = time.monotonic()
    {"seal": seal, "open": open_token}[verb](plain, token)
    seconds = time.monotonic() - start
    print(f"{seconds:.4f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")


main()
