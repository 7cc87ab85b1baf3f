#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Files that a download left where data should be."""

# Constants ----------------------------------------------------------------------------------------

LONGEST    = 512 # Bytes of a file that tell.
STAND_INS  = ( # How the file begins, in lower case; what it is.
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer (git lfs pull brings the file itself)"),
    (b"<!doctype html",                           "an HTML page (a download that failed)"),
    (b"<html",                                    "an HTML page (a download that failed)"),
    (b"<?xml",                                    "an XML page (a download that failed)"),
)

# Check --------------------------------------------------------------------------------------------

def stand_in(path):
    """What a file is that cannot be what it should be, in words; None for any other file, or one that cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(LONGEST).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except (OSError, ValueError): # ValueError: a null character in the name.
        return None
    return next((kind for beginning, kind in STAND_INS if start.startswith(beginning)), None)
