#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Keeps the tests' process small: what a test file has built is given back when its tests are done."""

import gc

import pytest

from migen.fhdl import tracer


@pytest.fixture(autouse=True)
def forget_modules():
    """Migen keeps every module it has ever given a name, a SoC's 10,000 signals among them. Forgotten, names also do not depend
    on which tests ran before, so compiled modules are found again."""
    tracer.classname_to_objs.clear()
    tracer.name_to_idx.clear()


@pytest.fixture(autouse=True, scope="module")
def give_back(request):
    """Empty the caches (functools.cache) of a test file, in which compiled modules are."""
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    tracer.classname_to_objs.clear()
    gc.collect()
