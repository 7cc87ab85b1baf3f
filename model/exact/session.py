#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sessions of the exact model, and of the device, in files: from the same text both write the same bytes.

A file (model/session_file.py) has ``tokens`` (int64), all of them; the state after all of them but the last, for layer i ``conv.i``, the
window of its convolution, and ``ssm.i`` (both float16); and ``network``, :func:`model.image.fingerprint`. To fork a text, load one file
several times.
"""

import numpy as np

from model.checkpoint_config import CheckpointError
from model.exact.decoder import check_tokens
from model.exact.network import LayerState
from model.session_file import DIGEST_BYTES, check_arrays, read_arrays, signed

# Sessions -----------------------------------------------------------------------------------------

def session_bytes(decoder, digest):
    """A text's session, as the content of a file.

    decoder: :class:`model.exact.decoder.ExactDecoder`, or one with the same methods. digest: of its model.

    Raises
    ------
    ValueError : it has no token yet.
    """
    if not decoder.tokens:
        raise ValueError("a session must have a token, has none: take one first.")
    arrays = {"tokens": np.array(decoder.tokens, np.int64), "network": digest}
    for layer, state in enumerate(decoder.states()):
        arrays[f"conv.{layer}"] = np.ascontiguousarray(state.window)
        arrays[f"ssm.{layer}"]  = np.ascontiguousarray(state.h)
    return signed(arrays)


def load_session(decoder, path, digest):
    """Set a decoder to the session of a file.

    Raises
    ------
    CheckpointError : names the file, and what does not fit: a changed byte, the weights, the type, shape or values of an array.
    """
    arrays   = read_arrays(path)
    config   = decoder.config
    layer    = config.layer
    expected = {"tokens": (np.int64, (None,)), "network": (np.uint8, (DIGEST_BYTES,))}
    for number in range(config.n_layer):
        expected[f"conv.{number}"] = (np.float16, (layer.d_conv - 1, layer.d_xbc))
        expected[f"ssm.{number}"]  = (np.float16, (layer.heads, layer.headdim, layer.d_state))
    check_arrays(path, arrays, expected, lambda: digest)
    try:
        check_tokens(arrays["tokens"], config.vocab_size)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    states = [LayerState(arrays[f"ssm.{number}"], arrays[f"conv.{number}"]) for number in range(config.n_layer)]
    decoder.restore(arrays["tokens"].tolist(), states)
