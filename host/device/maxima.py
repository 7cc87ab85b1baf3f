#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What a gateware that is too small for a model is to be built with."""

from model.config import Mamba2Config

from operations.config import SSMConfig, ceil_multiple
from operations.ssm import Geometry

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

LARGEST = SSMConfig(max_headdim=256, max_d_state=512, max_heads=65535, max_groups=65535) # What can be built.
OPTIONS = { # Size: how the targets, or a SoC of one's own, take its maximum.
    "headdim" : "--max-headdim {}",
    "d_state" : "--max-d-state {}",
    "heads"   : "SSMConfig(max_heads={})",
    "groups"  : "SSMConfig(max_groups={})",
}

# Advice -------------------------------------------------------------------------------------------

def build_advice(config: SSMConfig, **sizes: int) -> str:
    """How to build a gateware for sizes beyond the maxima of `config`, as the end of a message; "" where that does not help.

    sizes: heads, headdim, d_state and groups, or some of them.
    """
    beyond = {name: size for name, size in sizes.items() if name in OPTIONS and isinstance(size, int) and
        size > getattr(config, f"max_{name}")}
    if not beyond or any(size > getattr(LARGEST, f"max_{name}") for name, size in beyond.items()):
        return ""
    if "d_state" in beyond:
        beyond["d_state"] = ceil_multiple(beyond["d_state"], config.d_state_multiple)
    return f"; build the gateware with {' and '.join(OPTIONS[name].format(size) for name, size in beyond.items())}"


def model_geometry(config: SSMConfig, layer: Mamba2Config) -> Geometry:
    """The :class:`~operations.ssm.Geometry` of a model's layers, a Mamba2Config, on a gateware of `config`.

    Raises
    ------
    UsageError : names the size that the gateware was not built for, and with what to build one that is.
    """
    sizes = {"heads": layer.heads, "headdim": layer.headdim, "d_state": layer.d_state, "groups": layer.ngroups}
    try:
        return Geometry(config, **sizes)
    except ValueError as error:
        raise UsageError(f"the model's {str(error).removesuffix('.')}{build_advice(config, **sizes)}.") from error
