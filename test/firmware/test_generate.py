#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The firmware's opcodes GENERATE, BATCH and PASS, compiled for the host against fake engines: which programs it runs, with what in the registers,
what it writes, and what it refuses."""

import struct

import numpy as np
import pytest


from native import build as native
from native.device import DATA_BASE, RAM_BASE, RAM_END, Device

from model.exact.drafts import draft
from model.exact.head import best
from model.exact.sampling import inverse_of, sample

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig
from operations.image import (HEADER_BYTES, IMAGE_HEAD, IMAGE_MAGIC, IMAGE_VERSION, MAX_PASS_TOKENS, MAX_PROMPT_TOKENS, MAX_RESIDUAL, MAX_STOP_TOKENS,
    MAX_TOKENS, MAX_VOCABULARY, OUTPUT_HEAD, OUTPUT_HEAD_BYTES, OUTPUT_WIDE, PROGRAM_ENTRY, TEXT_WORDS, ProgramKind, Reason,
    Stage, program_number, stage_kinds)
from operations.numerics import CANDIDATES
from operations.operations import Engine, JobFlag, Opcode
from operations.program import Register
from operations.protocol import JOB_BYTES, RING_ENTRIES, Error, Status
from operations.timeouts import program_timeout

# Constants ----------------------------------------------------------------------------------------

CONFIG  = SSMConfig()
PROGRAM = ProgramConfig(pass_tokens=4)
BEAT    = native.DATA_WIDTH//8

MODEL, SESSION_IN, SESSION_OUT, PROMPT, OUTPUT = (DATA_BASE + 0x100000*n for n in range(1, 6))

# Image --------------------------------------------------------------------------------------------

HEAD = dict(magic=IMAGE_MAGIC, version=IMAGE_VERSION, image_bytes=0x40000, data_width=native.DATA_WIDTH, lanes=CONFIG.lanes, pass_tokens=3,
    scratch=PROGRAM.elements, activations=PROGRAM.activations, deferred=7, x_stride=0x80, bc_stride=0x40, stage=0, residual_bytes=0x140, vocabulary=1000, logit_rows=1002, state_bytes=0x3000, window_bytes=0x400,
    window_step=0x70, sessions=2, tape=0x30000, embedding=0x31000, parameters=0x32000, records=0x33000, results=0x34000, zero_window=0x35000)

TOO_FAR = HEAD["image_bytes"] # The image's end.
STATE, SESSION = HEAD["state_bytes"], HEAD["state_bytes"] + HEAD["window_bytes"]


def entry(kind, tokens):
    """The program of a kind for so many tokens, by its words."""
    number = program_number(kind, tokens)
    return dict(program=0x1000 + 0x2000//2*number, descriptors=number + 2, tape_place=0x30000 + 0x40*number, tape_beats=10*number + 1)


def image_words(tokens=HEAD["pass_tokens"], **changes):
    """All words of a header, of which some are changed: by name, or number."""
    words = [HEAD[name] for name in IMAGE_HEAD]
    for kind in ProgramKind:
        for count in range(1, MAX_PASS_TOKENS + 1):
            values = entry(kind, count) if count <= (tokens if kind != ProgramKind.BATCH else HEAD["sessions"]) else {}
            words += [values.get(name, 0) for name in PROGRAM_ENTRY]
    for name, value in changes.items():
        words[IMAGE_HEAD.index(name)] = value
    return words


def word_of(kind, tokens, name):
    """Number of a word of the header."""
    return len(IMAGE_HEAD) + program_number(kind, tokens)*len(PROGRAM_ENTRY) + PROGRAM_ENTRY.index(name)

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    device = Device(native.build(str(tmp_path_factory.mktemp("native")), CONFIG, program=PROGRAM))
    yield device
    device.close()


@pytest.fixture
def device(driver):
    """With an image in its DRAM. The firmware's CPU may touch its header, its results, prompt and output, but no more."""
    driver.power_up()
    write_image(driver)
    driver.open(MODEL, HEADER_BYTES)
    driver.open(MODEL + HEAD["results"], 3*8*CANDIDATES)
    driver.open(PROMPT, 4096)
    driver.open(OUTPUT, 4096)
    return driver

# Helpers ------------------------------------------------------------------------------------------

def write_image(device, words=None, address=MODEL):
    words = words or image_words()
    device.write(address, struct.pack(f"<{len(words)}I", *words))


def job(prompt_tokens=5, tokens=4, **words):
    return dict(opcode=Opcode.GENERATE, model=MODEL, session_in=SESSION_IN, session_out=SESSION_OUT, prompt=PROMPT, output=OUTPUT,
        prompt_tokens=prompt_tokens, tokens=tokens, place=0, inverse=0, top=1, seed=0, stop_tokens=0, store_every=1) | words


def run(device, prompt=(11, 12, 13, 14, 15), stops=(), **words):
    device.write(PROMPT, struct.pack(f"<{len(prompt) + len(stops)}I", *prompt, *stops))
    return device.run(**job(len(prompt), stop_tokens=len(stops), **words))


def answer(device, candidates):
    """From now on HEAD writes these: [(tokens, float32 logits)], in turn."""
    left = list(candidates)

    def handler(program):
        if kind_of(program)[0] == ProgramKind.HEAD:
            tokens, logits = left.pop(0)
            found = np.zeros(CANDIDATES, [("token", "<u4"), ("logit", "<f4")])
            found["token"][:len(tokens)], found["logit"][:len(tokens)] = tokens, logits
            device.write(program.bases[Register.RESULTS], found.tobytes())

    device.on("program", handler)


def greedy(*tokens):
    """Candidates of which each best one is a token."""
    return [([token, token + 1], np.array([2, 1], np.float32)) for token in tokens]


def kind_of(program):
    """(kind, tokens) of a program that was started; its registers are those of its entry."""
    number = program.descriptors - 2
    kind, tokens = ProgramKind(number//MAX_PASS_TOKENS), number % MAX_PASS_TOKENS + 1
    words = entry(kind, tokens)
    assert program.address                  == MODEL + words["program"]
    assert program.bases[Register.TAPE]     == MODEL + words["tape_place"]
    assert program.tape_beats               == words["tape_beats"]
    return kind, tokens


def output(device):
    head = dict(zip(OUTPUT_HEAD, struct.unpack(f"<{len(OUTPUT_HEAD)}I", device.read(OUTPUT, 4*len(OUTPUT_HEAD)))))
    wide = {name: head[f"{name}_low"] | head[f"{name}_high"] << 32 for name in OUTPUT_WIDE}
    return dict(count=head["count"], reason=Reason(head["reason"]), passes=head["passes"], drafted=head["drafted"],
        tokens=list(struct.unpack(f"<{head['count']}I", device.read(OUTPUT + OUTPUT_HEAD_BYTES, 4*head["count"]))), **wide)


def assert_done(result, units):
    assert (Error(result["error"]), Status(result["status"]), result["error_detail"], result["units"]) == (Error.NONE, Status.DONE, 0, units)


def assert_fails(result, error, detail, units=0):
    assert (Error(result["error"]), Status(result["status"])) == (error, Status.FAILED)
    assert result["error_detail"] == detail % 2**32
    assert result["units"] == units


LAYERS, HEADS, LOGITS = ProgramKind.LAYERS, ProgramKind.HEAD, ProgramKind.LOGITS

# Passes -------------------------------------------------------------------------------------------

def test_info(device):
    device.csr("program_version", 0x203)
    device.command("start")
    assert device.info()["engines"][Engine.PROGRAM] == dict(version=0x203, pass_tokens=4, vector_lanes=4, scratch=PROGRAM.elements,
        activations=PROGRAM.activations, units=31)


@pytest.mark.parametrize("length", range(1, 8))
def test_passes(device, length):
    """The prompt in passes of three tokens, the rest as one, then token by token."""
    prompt = list(range(100, 100 + length))
    answer(device, greedy(7, 8, 9))
    result = run(device, prompt, tokens=3, seed=2**32 - 2, place=40)
    assert_done(result, length + 2)
    passes = [3]*(length//3) + [length % 3]*(length % 3 > 0)
    wanted = [(LAYERS, count) for count in passes] + [(HEADS, passes[-1])] + [(LAYERS, 1), (HEADS, 1)]*2
    assert [kind_of(program) for program in device.programs] == wanted
    layers = [program for program in device.programs if kind_of(program)[0] == LAYERS]
    assert [token for program in layers for token in program.tokens] == [*prompt, 7, 8]
    places = np.cumsum([0, *passes, 1])
    assert [program.seed for program in layers] == [(2**32 - 2 + 40 + place) % 2**32 for place in places]
    for number, program in enumerate(device.programs):
        first = SESSION_IN if number == 0 else SESSION_OUT
        assert program.zero_state == 0
        assert program.bases | {Register.TAPE: 0} == {Register.TAPE: 0,
            Register.EMBEDDING: MODEL + HEAD["embedding"], Register.PARAMETERS: MODEL + HEAD["parameters"],
            Register.STATE_IN:  first,         Register.STATE_OUT:  SESSION_OUT,
            Register.WINDOW_IN: first + STATE, Register.WINDOW_OUT: SESSION_OUT + STATE,
            Register.RECORDS: MODEL + HEAD["records"], Register.X_RECORDS: MODEL + HEAD["records"],
            Register.BC_RECORDS: MODEL + HEAD["records"], Register.RESULTS: MODEL + HEAD["results"]}
        assert program.no_store == int(kind_of(program)[0] != LAYERS) and program.deferred == 0
    told = output(device)
    assert (told["count"], told["reason"], told["tokens"]) == (3, Reason.LENGTH, [7, 8, 9])
    assert (told["passes"], told["drafted"]) == (2, 0)


def test_zero_state(device):
    """Only the first program begins with it; session_in is not looked at."""
    answer(device, greedy(7, 8))
    assert_done(run(device, tokens=2, flags=JobFlag.ZERO_STATE, session_in=1), 6)
    assert [program.zero_state for program in device.programs] == [1, 0, 0, 0, 0]
    assert [program.bases[Register.WINDOW_IN] for program in device.programs] == [MODEL + HEAD["zero_window"]] + [SESSION_OUT + STATE]*4
    assert {program.bases[Register.STATE_IN] for program in device.programs} == {SESSION_OUT}


def test_session_in_place(device):
    answer(device, greedy(7, 8))
    assert_done(run(device, tokens=2, session_in=SESSION_OUT), 6)
    assert {program.bases[Register.STATE_IN] for program in device.programs} == {SESSION_OUT}


def test_no_tokens(device):
    """The session alone is written; and how long that took."""
    device.write(OUTPUT, b"\xff"*OUTPUT_HEAD_BYTES)
    assert_done(run(device, tokens=0), 5)
    assert [kind_of(program) for program in device.programs] == [(LAYERS, 3), (LAYERS, 2)]
    told = output(device)
    assert (told["count"], told["reason"]) == (0, Reason.NONE)
    assert told["prefill_cycles"] > 2000 and told["decode_cycles"] == 0


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_logits(device, length):
    """After each pass, one after the other; no more is written."""
    assert_done(run(device, range(length), tokens=0, flags=JobFlag.LOGITS), length)
    passes = [3]*(length//3) + [length % 3]*(length % 3 > 0)
    assert [kind_of(program) for program in device.programs] == [(kind, count) for count in passes for kind in (LAYERS, LOGITS)]
    address = OUTPUT
    for program, count in zip(device.programs[1::2], passes):
        assert program.bases[Register.RESULTS] == address
        address += -(-4*HEAD["logit_rows"]*count//ALIGNMENT)*ALIGNMENT
    assert device.read(OUTPUT, 4096) == bytes(4096)
    # All of it must lie in the data region.
    device.write(PROMPT, bytes(4*length))
    size = address - OUTPUT
    assert_done(device.run(**job(length, 0, flags=JobFlag.LOGITS, output=RAM_END - size)), length)
    assert_fails(device.run(**job(length, 0, flags=JobFlag.LOGITS, output=RAM_END - size + ALIGNMENT)), Error.BAD_ADDRESS,
        RAM_END - size + ALIGNMENT)


@pytest.mark.parametrize("stops", [(9,), (1, 2, 9), tuple(range(30, 30 + MAX_STOP_TOKENS - 1)) + (9,)])
@pytest.mark.parametrize("at", range(3))
def test_stop_tokens(device, stops, at):
    """It ends the text, and is neither written nor run."""
    tokens = [7, 8, 6][:at] + [9]
    answer(device, greedy(*tokens))
    assert_done(run(device, stops=stops, tokens=4), 5 + at)
    told = output(device)
    assert (told["count"], told["reason"], told["tokens"]) == (at, Reason.STOP, tokens[:-1])


@pytest.mark.parametrize("zero", [0, JobFlag.ZERO_STATE])
@pytest.mark.parametrize("length, tokens, stop", [(1, 1, None), (7, 0, None), (1, 6, None), (4, 6, None), (5, 9, 4), (2, 9, 0), (3, 2, 1)])
@pytest.mark.parametrize("every", [1, 2, 4, 8])
def test_deferred(device, every, length, tokens, stop, zero):
    """The state is stored when `every` tokens or more were run since the last time, and at the end; till then passes begin with the
    state before these, and their records lie one behind the other."""
    answer(device, greedy(*[20 + n if n != stop else 9 for n in range(tokens)]))
    decoded = max(tokens - 1, 0) if stop is None else stop
    passes  = [min(3, length - first) for first in range(0, length, 3)] + [1]*decoded
    wanted, done, deferred, stored = [], 0, 0, False
    for number, count in enumerate(passes):
        last  = number == len(passes) - 1 and decoded == max(tokens - 1, 0) # A stop token is not foreseen.
        store = last or deferred + count >= every
        wanted.append((LAYERS, count, deferred, int(not store), done - deferred, stored))
        deferred = 0 if store else deferred + count
        stored   = stored or store
        done    += count
    if deferred:
        wanted.append((ProgramKind.STATE, 1, deferred - 1, 0, done - deferred, stored))
    assert_done(run(device, range(length), (9,), tokens=tokens, seed=5, store_every=every, flags=zero), done)
    found = [program for program in device.programs if kind_of(program)[0] in (LAYERS, ProgramKind.STATE)]
    assert [(*kind_of(program), program.deferred, program.no_store, program.seed - 5) for program in found] == [row[:5] for row in wanted]
    for number, (program, row) in enumerate(zip(found, wanted)):
        assert program.zero_state == int(bool(zero) and not row[5])
        assert program.bases[Register.STATE_IN] == (SESSION_OUT if row[5] or zero else SESSION_IN)
        if row[0] == LAYERS:
            window = SESSION_OUT + STATE if number else MODEL + HEAD["zero_window"] if zero else SESSION_IN + STATE
            assert program.bases[Register.WINDOW_IN]  == window
            assert program.bases[Register.X_RECORDS]  == MODEL + HEAD["records"] + row[2]*HEAD["x_stride"]
            assert program.bases[Register.BC_RECORDS] == MODEL + HEAD["records"] + row[2]*HEAD["bc_stride"]


def test_deferred_more_than_there_is_room_for(device):
    write_image(device, image_words(deferred=2))
    answer(device, greedy(7))
    assert_done(run(device, tokens=1, store_every=3), 5)
    assert_fails(device.run(**job(tokens=1, store_every=4)), Error.BAD_STORE_EVERY, 4)


def test_cancelled(device):
    """At any time, before it begins too: it ends after its next token, as if no more had been asked for. Another job's number is none."""
    for at in range(4):
        index = device.rung
        answer(device, greedy(7, 8, 9, 6))
        handler = device.handlers["program"]

        def cancel(program, slot=device.slot(index)):
            handler(program)
            if len(device.programs) == 3 + 2*at: # At the end of the pass that gives this token.
                device.write(slot + JOB_BYTES - 4, struct.pack("<I", ~index % 2**32))
        device.on("program", cancel)
        assert_done(run(device, tokens=4, cancel=~(index - RING_ENTRIES) % 2**32), 5 + at)
        told = output(device)
        assert (told["count"], told["reason"]) == (at + 1, Reason.LENGTH if at == 3 else Reason.CANCELLED)
        assert told["tokens"] == [7, 8, 9, 6][:at + 1]
    answer(device, greedy(7))
    assert_done(run(device, tokens=4, cancel=~device.rung % 2**32), 5)
    assert output(device)["reason"] == Reason.CANCELLED


# Drafts -------------------------------------------------------------------------------------------

def candidates_of(tokens):
    found = np.zeros((len(tokens), CANDIDATES), [("token", "<u4"), ("logit", "<f4")])
    found["token"][:, 0], found["logit"][:, 0] = tokens, 1
    return found.tobytes()


def follow(device, text, length):
    """The engines go on with a text, of which so many tokens are the prompt; behind a draft that is wrong comes what is wrong."""
    done = [length]

    def handler(program):
        kind, _ = kind_of(program)
        if kind == HEADS:
            rows    = [text[done[0]]]
            done[0] += 1
        elif kind == ProgramKind.EACH:
            drafts = device.programs[-2].tokens[1:]
            right  = next((n for n, draft in enumerate(drafts) if draft != text[done[0] + n]), len(drafts))
            rows   = [*text[done[0]:done[0] + right + 1], *[777]*(len(drafts) - right)]
            done[0] += right + 1
        else:
            return
        device.write(program.bases[Register.RESULTS], candidates_of(rows))
    device.on("program", handler)


@pytest.mark.parametrize("every", [1, 4, 8])
@pytest.mark.parametrize("kind", ["round", "changes", "new"])
@pytest.mark.parametrize("tokens, stop", [(17, None), (2, None), (40, 9), (40, 12)])
def test_speculate(device, kind, tokens, stop, every):
    """The tokens of a pass are the last one and its drafts, its window the one after the last that was right."""
    rng    = np.random.default_rng(5)
    text   = [*range(100, 107)]*14 if kind == "round" else rng.integers(0, 1000, 98).tolist()
    if kind == "changes":
        text = [token if n % 11 else n for n, token in enumerate([*range(100, 107)]*14)]
    length = 16
    if stop is not None:
        text[length + stop] = 9
    decoded = tokens if stop is None else stop + 1 # Tokens that are chosen.
    count, deferred, drafted, place = 0, 0, 0, length
    wanted, drafts, window, passes = [], [], SESSION_OUT + STATE, 0
    STATES, DRAFTS, EACH = ProgramKind.STATE, ProgramKind.DRAFTS, ProgramKind.EACH
    for size in [3]*5 + [1]: # The prompt's passes.
        deferred = 0 if deferred + size >= every else deferred + size
    def store():
        wanted.append((STATES, max(1, deferred - 7), deferred - max(1, deferred - 7), (), window))
    while True:
        right = 0
        while True:
            count += 1
            if count == decoded or right == len(drafts) or text[length + count - 1] != drafts[right]:
                break
            right += 1
        if drafts:
            deferred += right + 1
            place    += right + 1
            window    = SESSION_OUT + STATE + HEAD["window_step"]*right
            if deferred >= every:
                store()
                deferred, window = 0, SESSION_OUT + STATE
        if count == decoded:
            break
        left   = tokens - count
        drafts = draft(text[:length + count], min(3, left) - 1)
        passes  += 1
        drafted += len(drafts)
        named    = (text[length + count - 1], *drafts)
        if drafts:
            wanted += [(DRAFTS, len(named), deferred, named, window), (EACH, len(named), 0, (), window)]
        else:
            wanted.append((LAYERS, 1, deferred, named, window))
            deferred = 0 if deferred + 1 >= every or left == 1 else deferred + 1
            window   = SESSION_OUT + STATE
            wanted.append((HEADS, 1, 0, (), window))
            place += 1
    if deferred:
        store()
    follow(device, text, length)
    assert_done(run(device, text[:length], (9,), tokens=tokens, flags=JobFlag.SPECULATE, store_every=every, seed=3), length + decoded - 1)
    found = [(*kind_of(program), program.deferred, program.tokens, program.bases[Register.WINDOW_IN]) for program in device.programs]
    assert found[7:] == wanted # Behind those of the prompt.
    told = output(device)
    assert told["tokens"] == text[length:length + decoded - (stop is not None)]
    assert (told["passes"], told["drafted"]) == (passes, drafted)
    assert all(program.no_store == (kind_of(program)[0] != STATES) for program in device.programs if kind_of(program)[0] in (DRAFTS, EACH, STATES))
    assert kind == "new" or drafted or tokens == 2


# Batches ------------------------------------------------------------------------------------------

def batch(device, given, stops=(), inverse=0, top=1, **words):
    """given: (token, place, seed, ended) of each session, and (inverse, top) where they are not all alike."""
    texts = [word for text in given for word in (*text, inverse, top)[:TEXT_WORDS]]
    device.write(PROMPT, struct.pack(f"<{len(texts) + len(stops)}I", *texts, *stops))
    return device.run(**dict(opcode=Opcode.BATCH, model=MODEL, sessions=SESSION_OUT, texts=PROMPT, session_count=len(given), tokens=4, output=OUTPUT,
        stop_tokens=len(stops)) | words)


@pytest.mark.parametrize("stop, cancel", [(None, False), (9, False), (None, True)])
def test_batch(device, stop, cancel):
    """A token of each session in a pass; the states in place, stored by each."""
    rows   = [[20, 30], [21, 31], [22, 9], [23, 33]]
    left   = [row for row in rows]
    index  = device.rung

    def handler(program):
        if kind_of(program)[0] == ProgramKind.EACH:
            device.write(program.bases[Register.RESULTS], candidates_of(left.pop(0)))
            if cancel and len(left) == 1:
                device.write(device.slot(index) + JOB_BYTES - 4, struct.pack("<I", ~index % 2**32))
    device.on("program", handler)
    count = 4 if stop is None and not cancel else 3
    assert_done(batch(device, [(5, 7, 1, 0), (6, 70, 2, 0)], () if stop is None else (stop,)), 2*count)
    assert [kind_of(program) for program in device.programs] == [(ProgramKind.BATCH, 2), (ProgramKind.EACH, 2)]*count
    assert [program.tokens for program in device.programs[::2]] == [(5, 6), *map(tuple, rows[:count - 1])]
    for program in device.programs:
        assert (program.zero_state, program.deferred) == (0, 0) and program.no_store == (kind_of(program)[0] == ProgramKind.EACH)
        assert program.bases[Register.STATE_IN]  == program.bases[Register.STATE_OUT]  == SESSION_OUT
        assert program.bases[Register.WINDOW_IN] == program.bases[Register.WINDOW_OUT] == SESSION_OUT + STATE
        assert program.bases[Register.X_RECORDS] == program.bases[Register.BC_RECORDS] == MODEL + HEAD["records"]
    told = output(device)
    assert (told["count"], told["passes"]) == (count, count)
    assert told["reason"] == (Reason.STOP if stop else Reason.CANCELLED if cancel else Reason.LENGTH)
    assert list(struct.unpack(f"<{2*count}I", device.read(OUTPUT + OUTPUT_HEAD_BYTES, 8*count))) == [token for row in rows[:count] for token in row]
    assert told["prefill_cycles"] == 0 and told["decode_cycles"] > 1000*2*count


def test_batch_sampling(device):
    """Each session has its seed, its place, its temperature and what it draws from."""
    rng     = np.random.default_rng(3)
    choices = [best((rng.standard_normal(HEAD["vocabulary"])*3).astype(np.float32)) for _ in range(2)]
    found   = np.zeros((2, CANDIDATES), [("token", "<u4"), ("logit", "<f4")])
    for row, (tokens, logits) in zip(found, choices):
        row["token"], row["logit"] = tokens, logits
    device.on("program", lambda program: device.write(program.bases[Register.RESULTS], found.tobytes()))
    assert_done(batch(device, [(5, 7, 1, 0, inverse_of(0.7), 40), (6, 2**32 - 2, 2, 0, inverse_of(1.5), 64 | 0xc000_0000)], tokens=20), 40)
    told = np.array(struct.unpack("<40I", device.read(OUTPUT + OUTPUT_HEAD_BYTES, 160))).reshape(20, 2)
    for column, place, seed, temperature, top, (tokens, logits) in zip(told.T, (8, 2**32 - 1), (1, 2), (0.7, 1.5), ((40, 0), (64, 0xc000)), choices):
        assert column.tolist() == [sample(tokens, logits, inverse_of(temperature), top[0], seed, (place + n) % 2**32, top[1]) for n in range(20)]


BAD_BATCHES = [
    (dict(given=[(1, 0, 0, 0)]*3),               Error.BAD_SESSIONS, 3),
    (dict(session_count=0),                         Error.BAD_SESSIONS, 0),
    (dict(session_count=9),                         Error.BAD_SESSIONS, 9),
    (dict(session_count=2**31),                     Error.BAD_SESSIONS, 2**31),
    (dict(tokens=0),                                Error.BAD_TOKENS, 0),
    (dict(tokens=MAX_TOKENS + 1),                   Error.BAD_TOKENS, MAX_TOKENS + 1),
    (dict(top=0xffff_0000),                         Error.BAD_TOP_K, 0xffff_0000),
    (dict(given=[(1, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 65)]), Error.BAD_TOP_K, 65),
    (dict(stop_tokens=17),                          Error.BAD_STOP_TOKENS, 17),
    (dict(flags=JobFlag.ZERO_STATE),                Error.BAD_FLAGS, JobFlag.ZERO_STATE),
    (dict(model=MODEL + 4),                         Error.BAD_ALIGNMENT, MODEL + 4),
    (dict(model=RAM_END),                           Error.BAD_ADDRESS, RAM_END),
    (dict(texts=RAM_END),                           Error.BAD_ADDRESS, RAM_END),
    (dict(sessions=RAM_END - SESSION),              Error.BAD_ADDRESS, RAM_END - SESSION),
    (dict(sessions=MODEL - SESSION),                Error.OVERLAP, MODEL - SESSION),
    (dict(sessions=PROMPT - 2*SESSION + ALIGNMENT), Error.OVERLAP, PROMPT - 2*SESSION + ALIGNMENT),
    (dict(output=SESSION_OUT + 2*SESSION - ALIGNMENT), Error.OVERLAP, SESSION_OUT + 2*SESSION - ALIGNMENT),
    (dict(output=MODEL + TOO_FAR - ALIGNMENT),      Error.OVERLAP, MODEL + TOO_FAR - ALIGNMENT),
    (dict(given=[(1, 0, 0, 0), (1000, 0, 0, 0)]),   Error.BAD_TOKEN, 1000),
]


@pytest.mark.parametrize("changes, error, detail", BAD_BATCHES)
def test_bad_batch(device, changes, error, detail):
    assert_fails(batch(device, **{"given": [(1, 0, 0, 0)]*2} | changes), error, detail)
    assert not device.programs
    assert device.read(OUTPUT, 4096) == bytes(4096)

# Passes that the host asks for --------------------------------------------------------------------

STAGES   = {"whole": 0, "first": Stage.NO_HEAD, "inner": Stage.NO_HEAD | Stage.NO_EMBEDDING, "last": Stage.NO_EMBEDDING}
RESIDUAL = HEAD["residual_bytes"]


def run_pass(device, stage=0, tokens=2, given=(5, 6, 7), **words):
    """On an image of a stage, which has only the programs that such a one must have."""
    image = image_words(stage=stage)
    for kind in set(ProgramKind) - set(stage_kinds(stage)):
        for count in range(1, MAX_PASS_TOKENS + 1):
            image[word_of(kind, count, "program")] = 2**32 - 1
    write_image(device, image)
    device.write(PROMPT, struct.pack(f"<{len(given)}I", *given))
    return device.run(**dict(opcode=Opcode.PASS, model=MODEL, session_in=SESSION_IN, session_out=SESSION_OUT, input=PROMPT, tokens=tokens, place=40,
        seed=2**32 - 2, output=OUTPUT) | words)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("flags", [0, JobFlag.ZERO_STATE, JobFlag.CANDIDATES])
@pytest.mark.parametrize("tokens", [1, 3])
def test_pass(device, name, flags, tokens):
    """The state is stored; a stage that is not the first one takes the residual stream from the host, and writes what there is to it."""
    stage  = STAGES[name]
    result = run_pass(device, stage, tokens, flags=flags)
    if flags & JobFlag.CANDIDATES and stage & Stage.NO_HEAD:
        assert_fails(result, Error.BAD_STAGE, stage)
        assert not device.programs
        return
    assert_done(result, tokens)
    assert [kind_of(program) for program in device.programs] == [(LAYERS, tokens), *[(HEADS, tokens)]*bool(flags & JobFlag.CANDIDATES)]
    layers, *heads = device.programs
    zero  = bool(flags & JobFlag.ZERO_STATE)
    embed = PROMPT if stage & Stage.NO_EMBEDDING else MODEL + HEAD["embedding"]
    assert layers.tokens == (() if stage & Stage.NO_EMBEDDING else (5, 6, 7)[:tokens])
    assert (layers.seed, layers.zero_state, layers.no_store, layers.deferred) == (38, zero, 0, 0)
    first = SESSION_OUT if zero else SESSION_IN
    assert layers.bases | {Register.TAPE: 0} == {Register.TAPE: 0, Register.EMBEDDING: embed, Register.PARAMETERS: MODEL + HEAD["parameters"],
        Register.STATE_IN: first, Register.STATE_OUT: SESSION_OUT, Register.WINDOW_IN: MODEL + HEAD["zero_window"] if zero else first + STATE,
        Register.WINDOW_OUT: SESSION_OUT + STATE, Register.RECORDS: MODEL + HEAD["records"], Register.X_RECORDS: MODEL + HEAD["records"],
        Register.BC_RECORDS: MODEL + HEAD["records"], Register.RESULTS: OUTPUT}
    assert all(program.bases[Register.RESULTS] == OUTPUT for program in heads)


BAD_PASSES = [
    ("whole", dict(tokens=0),                                Error.BAD_TOKENS, 0),
    ("whole", dict(tokens=9),                                Error.BAD_TOKENS, 9),
    ("inner", dict(tokens=4),                                Error.BAD_TOKENS, 4),
    ("whole", dict(flags=JobFlag.LOGITS),                    Error.BAD_FLAGS, JobFlag.LOGITS),
    ("whole", dict(given=(1, 1000)),                         Error.BAD_TOKEN, 1000),
    ("first", dict(given=(2**32 - 1, 1)),                    Error.BAD_TOKEN, 2**32 - 1),
    ("inner", dict(model=MODEL + 4),                         Error.BAD_ALIGNMENT, MODEL + 4),
    ("inner", dict(model=RAM_END),                           Error.BAD_ADDRESS, RAM_END),
    ("inner", dict(input=RAM_END - 2*RESIDUAL + ALIGNMENT),  Error.BAD_ADDRESS, RAM_END - 2*RESIDUAL + ALIGNMENT),
    ("inner", dict(output=RAM_END - RESIDUAL),               Error.BAD_ADDRESS, RAM_END - RESIDUAL),
    ("last",  dict(output=RAM_END - ALIGNMENT, flags=JobFlag.CANDIDATES), Error.BAD_ADDRESS, RAM_END - ALIGNMENT),
    ("inner", dict(session_in=RAM_END - SESSION + ALIGNMENT), Error.BAD_ADDRESS, RAM_END - SESSION + ALIGNMENT),
    ("inner", dict(session_out=RAM_END),                     Error.BAD_ADDRESS, RAM_END),
    ("inner", dict(session_out=SESSION_IN + ALIGNMENT),      Error.OVERLAP, SESSION_IN + ALIGNMENT),
    ("inner", dict(session_out=MODEL - ALIGNMENT),           Error.OVERLAP, MODEL - ALIGNMENT),
    ("inner", dict(session_out=PROMPT + 2*RESIDUAL - ALIGNMENT), Error.OVERLAP, PROMPT + 2*RESIDUAL - ALIGNMENT),
    ("inner", dict(output=PROMPT - ALIGNMENT),               Error.OVERLAP, PROMPT - ALIGNMENT),
    ("inner", dict(output=SESSION_IN),                       Error.OVERLAP, SESSION_IN),
    ("inner", dict(output=SESSION_OUT - ALIGNMENT),          Error.OVERLAP, SESSION_OUT - ALIGNMENT),
    ("last",  dict(output=MODEL, flags=JobFlag.CANDIDATES),  Error.OVERLAP, MODEL),
]


@pytest.mark.parametrize("name, changes, error, detail", BAD_PASSES)
def test_bad_pass(device, name, changes, error, detail):
    assert_fails(run_pass(device, STAGES[name], **changes), error, detail)
    assert not device.programs
    assert device.read(OUTPUT, 4096) == bytes(4096)


@pytest.mark.parametrize("stage", [stage for stage in STAGES.values() if stage])
def test_whole_jobs_refuse_a_stage(device, stage):
    write_image(device, image_words(stage=stage))
    assert_refused(device, Error.BAD_STAGE, stage)
    assert_fails(batch(device, [(1, 0, 0, 0)]), Error.BAD_STAGE, stage)


@pytest.mark.parametrize("stage", STAGES.values())
def test_bad_program_of_a_stage(device, stage):
    for kind in stage_kinds(stage):
        words = image_words(stage=stage)
        words[word_of(kind, 2, "descriptors")] = 0
        write_image(device, words)
        assert_fails(device.run(opcode=Opcode.PASS, model=MODEL, session_in=SESSION_IN, session_out=SESSION_OUT, input=PROMPT, tokens=1, output=OUTPUT),
            Error.BAD_IMAGE, word_of(kind, 2, "descriptors"))


@pytest.mark.parametrize("error", [1, 5])
def test_pass_that_fails(device, error):
    device.set(program_errors=error)
    assert Error(run_pass(device, Stage.NO_HEAD)["error"]) == Error.GATEWARE
    device.set(program_errors=0)
    assert_done(run_pass(device, Stage.NO_HEAD), 2)


def test_tokens_are_told_at_once(device):
    """A host may follow the text while it is written."""
    seen = []
    answer(device, greedy(7, 8, 9))
    handler = device.handlers["program"]
    device.on("program", lambda program: (seen.append(output(device)["tokens"]), handler(program)))
    assert_done(run(device, tokens=3), 7)
    assert seen == [[], [], [], [7], [7], [7, 8], [7, 8]]


@pytest.mark.parametrize("inverse, top_k, top_p", [(0, 64, 0), (inverse_of(0.7), 1, 0), (inverse_of(0.7), 40, 0), (inverse_of(1.5), 64, 0),
    (inverse_of(1.5), 64, 0x8000), (inverse_of(1.5), 3, 0xe000), (inverse_of(1.5), 64, 1)])
def test_sampling(device, inverse, top_k, top_p):
    rng     = np.random.default_rng(3)
    choices = [best((rng.standard_normal(HEAD["vocabulary"])*3).astype(np.float32)) for _ in range(40)]
    answer(device, choices)
    assert_done(run(device, tokens=40, inverse=inverse, top=top_k | top_p << 16, seed=99, place=1000), 44)
    assert output(device)["tokens"] == [sample(tokens, logits, inverse, top_k, 99, 1005 + n, top_p) for n, (tokens, logits) in enumerate(choices)]


def test_small_vocabulary(device):
    """What lies behind its tokens is no candidate."""
    write_image(device, image_words(vocabulary=3, logit_rows=3))
    logits = np.zeros(3, np.float32)
    answer(device, [([0, 1, 2], logits)]*30)
    assert_done(run(device, [0, 1], tokens=30, inverse=2**16, top=64), 31)
    assert output(device)["tokens"] == [sample([0, 1, 2], logits, 2**16, 64, 0, 2 + n) for n in range(30)]


def test_counts(device):
    """Of both phases; the result has all together, also of the SSM core."""
    answer(device, greedy(7, 8, 9))
    result = run(device, tokens=3)
    told   = output(device)
    prefill, decode = 3, 4 # Programs.
    for phase, programs in (("prefill", prefill), ("decode", decode)):
        assert 1000*programs <= told[f"{phase}_cycles"] < 2500*programs
        assert told[f"{phase}_read"]    == 320*BEAT*programs
        assert told[f"{phase}_written"] == 60*BEAT*programs
    assert [told[f"decode_wait_{name}"] for name in ("move", "gemv", "vector", "ssm", "head", "tape")] == [decode*n for n in range(1, 7)]
    assert result["busy_cycles_low"]   == 1000*(prefill + decode)
    assert result["bytes_read_low"]    == 320*BEAT*(prefill + decode)
    assert result["bytes_written_low"] == 60*BEAT*(prefill + decode)
    assert told["prefill_cycles"] + told["decode_cycles"] < result["cycles_low"]
    # Those of the job after it are its own.
    device.write(PROMPT, bytes(4))
    assert device.run(**job(1, 0))["bytes_read_low"] == 320*BEAT
    assert device.run(opcode=Opcode.NOP)["bytes_read_low"] == 0


def test_little_time_between_passes(device):
    """Accesses to CSRs, of 8 cycles each, from a pass's end to the next one's start."""
    answer(device, greedy(*range(20)))
    assert_done(run(device, tokens=20), 24)
    told = output(device)
    assert told["decode_cycles"]/38 - 1000 < 8*40


def test_in_the_ring(device):
    """Among others, in its turn."""
    answer(device, greedy(*[7]*RING_ENTRIES))
    device.write(PROMPT, bytes(64))
    for index in range(RING_ENTRIES):
        device.post(index, **(job(2, 1) if index % 2 else dict(opcode=Opcode.NOP)))
    device.ring(RING_ENTRIES)
    for index in range(RING_ENTRIES):
        assert device.poll() == index + 1
        assert Status(device.result(index)["status"]) == Status.DONE


@pytest.mark.parametrize("deaf", [0, 1])
def test_without_interrupt(device, deaf):
    """A lost interrupt costs time only."""
    device.set(deaf=deaf)
    answer(device, greedy(7, 8))
    assert_done(run(device, tokens=2), 6)
    assert device.csr("program_ev_pending") & 1 == deaf

# Checks -------------------------------------------------------------------------------------------

def assert_refused(device, error, detail, **words):
    """Nothing is run or written."""
    assert_fails(run(device, **words), error, detail)
    assert not device.programs
    assert device.read(OUTPUT, 4096) == bytes(4096)


BAD_WORDS = [
    ("magic", 0), ("magic", IMAGE_MAGIC ^ 1), ("version", 0), ("version", IMAGE_VERSION + 1),
    ("image_bytes", 0), ("image_bytes", HEADER_BYTES), ("image_bytes", 0x40001), ("image_bytes", RAM_END - MODEL + ALIGNMENT),
    ("image_bytes", 2**32 - ALIGNMENT),
    ("data_width", 0), ("data_width", 2*native.DATA_WIDTH), ("lanes", 8), ("pass_tokens", 0), ("pass_tokens", 5), ("pass_tokens", 2**31),
    ("scratch", PROGRAM.elements + 1), ("activations", PROGRAM.activations + 1),
    ("vocabulary", 0), ("vocabulary", MAX_VOCABULARY + 1), ("logit_rows", 999), ("logit_rows", 2**31),
    ("state_bytes", 0), ("state_bytes", 0x3001), ("window_bytes", 0x420),
    ("stage", 4), ("stage", 2**31), ("residual_bytes", 0), ("residual_bytes", 0x150), ("residual_bytes", MAX_RESIDUAL + ALIGNMENT),
    ("window_step", 0x68), ("window_step", 0x210), ("window_step", 2**31), ("sessions", 0), ("sessions", 4),
    *((name, value) for name in ("tape", "embedding", "parameters", "records", "results", "zero_window")
        for value in (0, HEADER_BYTES - ALIGNMENT, 0x10020, TOO_FAR, 2**32 - ALIGNMENT)),
    ("results", TOO_FAR - 3*8*CANDIDATES + ALIGNMENT), ("zero_window", TOO_FAR - 0x400 + ALIGNMENT),
]


@pytest.mark.parametrize("name, value", BAD_WORDS)
def test_bad_image(device, name, value):
    write_image(device, image_words(**{name: value}))
    assert_refused(device, Error.BAD_IMAGE, IMAGE_HEAD.index(name))


@pytest.mark.parametrize("kind",   ProgramKind)
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("name, value", [
    ("program", 0), ("program", HEADER_BYTES - ALIGNMENT), ("program", 0x1010), ("program", TOO_FAR), ("program", 2**32 - ALIGNMENT),
    ("descriptors", 0), ("descriptors", 0x1000), ("descriptors", 2**26), ("descriptors", 2**32 - 1),
    ("tape_place", 0), ("tape_place", 0x30010), ("tape_place", TOO_FAR),
    ("tape_beats", 0x10000//BEAT + 1), ("tape_beats", 2**28), ("tape_beats", 2**32 - 1),
])
def test_bad_program(device, kind, tokens, name, value):
    words  = image_words()
    number = word_of(kind, tokens, name)
    words[number] = value
    write_image(device, words)
    assert_refused(device, Error.BAD_IMAGE, number)


def test_programs_that_are_not_needed(device):
    """Those above pass_tokens may be anything."""
    words = image_words()
    for kind in ProgramKind:
        for name in PROGRAM_ENTRY:
            words[word_of(kind, 4, name)] = 2**32 - 1
    write_image(device, words)
    answer(device, greedy(7))
    assert_done(run(device, tokens=1), 5)


def test_largest_image(device):
    """It, and all in it, may end where the data region ends."""
    address = RAM_END - TOO_FAR
    words   = image_words(results=TOO_FAR - 3*8*CANDIDATES)
    words[word_of(LAYERS, 1, "program")]     = TOO_FAR - 4*64
    words[word_of(LAYERS, 1, "descriptors")] = 4
    words[word_of(LAYERS, 1, "tape_place")]  = TOO_FAR - 4*ALIGNMENT
    words[word_of(LAYERS, 1, "tape_beats")]  = 4*ALIGNMENT//BEAT
    device.open(address, HEADER_BYTES)
    write_image(device, words, address)
    device.write(PROMPT, bytes(4))
    assert_done(device.run(**job(1, 0, model=address)), 1)
    assert device.programs[0].address + 64*device.programs[0].descriptors == RAM_END


@pytest.mark.parametrize("error, word, value", [
    (Error.BAD_TOKENS,      "prompt_tokens", 0),
    (Error.BAD_TOKENS,      "prompt_tokens", MAX_PROMPT_TOKENS + 1),
    (Error.BAD_TOKENS,      "prompt_tokens", 2**32 - 1),
    (Error.BAD_TOKENS,      "tokens",        MAX_TOKENS + 1),
    (Error.BAD_TOKENS,      "tokens",        2**32 - 1),
    (Error.BAD_TOP_K,       "top",           0),
    (Error.BAD_TOP_K,       "top",           CANDIDATES + 1),
    (Error.BAD_TOP_K,       "top",           0x8000_0000),
    (Error.BAD_STOP_TOKENS, "stop_tokens",   MAX_STOP_TOKENS + 1),
    (Error.BAD_STOP_TOKENS, "stop_tokens",   2**32 - 1),
    (Error.BAD_STORE_EVERY, "store_every",   0),
    (Error.BAD_STORE_EVERY, "store_every",   9),
    (Error.BAD_FLAGS,       "flags",         JobFlag.NO_STORE),
    *((Error.BAD_ALIGNMENT, name,            DATA_BASE + 0x800010) for name in ("model", "session_in", "session_out", "prompt", "output")),
    *((Error.BAD_ADDRESS,   name,            address) for name in ("model", "session_in", "session_out", "prompt", "output")
        for address in (0, RAM_BASE, DATA_BASE - ALIGNMENT, RAM_END, 2**32 - ALIGNMENT)),
    (Error.BAD_ADDRESS,     "model",         RAM_END - HEADER_BYTES + ALIGNMENT),
    (Error.BAD_ADDRESS,     "session_in",    RAM_END - SESSION + ALIGNMENT),
    (Error.BAD_ADDRESS,     "session_out",   RAM_END - SESSION + ALIGNMENT),
    (Error.BAD_ADDRESS,     "output",        RAM_END - OUTPUT_HEAD_BYTES),
    (Error.OVERLAP,         "session_out",   MODEL),
    (Error.OVERLAP,         "session_out",   MODEL + TOO_FAR - ALIGNMENT),
    (Error.OVERLAP,         "session_out",   MODEL - SESSION + ALIGNMENT),
    (Error.OVERLAP,         "session_out",   PROMPT),
    (Error.OVERLAP,         "session_out",   SESSION_IN + ALIGNMENT),
    (Error.OVERLAP,         "session_out",   SESSION_IN - ALIGNMENT),
    (Error.OVERLAP,         "output",        MODEL + 0x10000),
    (Error.OVERLAP,         "output",        SESSION_IN + SESSION - ALIGNMENT),
    (Error.OVERLAP,         "output",        SESSION_OUT),
    (Error.OVERLAP,         "output",        PROMPT),
    (Error.OVERLAP,         "output",        PROMPT - OUTPUT_HEAD_BYTES),
])
def test_bad_word(device, error, word, value):
    device.write(PROMPT, struct.pack("<5I", *range(5)))
    assert_fails(device.run(**job() | {word: value}), error, value)
    assert not device.programs
    answer(device, greedy(7))
    assert_done(run(device, tokens=1), 5)


def test_logits_and_tokens(device):
    assert_refused(device, Error.BAD_TOKENS, 1, tokens=1, flags=JobFlag.LOGITS)


def test_huge_logits(device):
    """Sizes beyond 32 bits are not taken for small ones."""
    write_image(device, image_words(vocabulary=MAX_VOCABULARY, logit_rows=MAX_VOCABULARY))
    assert_fails(device.run(**job(3*1024, 0, flags=JobFlag.LOGITS)), Error.BAD_ADDRESS, OUTPUT)
    write_image(device, image_words(state_bytes=2**32 - ALIGNMENT, window_bytes=2*ALIGNMENT, window_step=0, zero_window=0x1000))
    assert_fails(device.run(**job(1, 0)), Error.BAD_ADDRESS, SESSION_IN)


@pytest.mark.parametrize("at", range(5))
def test_bad_token(device, at):
    """Also the last one is found before anything is run."""
    prompt = [999]*5
    prompt[at] = 1000 + at
    assert_refused(device, Error.BAD_TOKEN, 1000 + at, prompt=prompt)


def test_token_that_changes(device):
    """After the check: what is run is checked."""
    device.on("program", lambda program: device.write(PROMPT, struct.pack("<5I", *[2**20]*5)))
    assert_fails(run(device), Error.BAD_TOKEN, 2**20, 3)
    assert len(device.programs) == 1


def test_header_that_changes(device):
    """What was checked is what is run."""
    device.on("program", lambda program: write_image(device, [0]*len(image_words())))
    device.write(PROMPT, struct.pack("<5I", *range(5)))
    assert_done(run(device, tokens=0), 5)
    assert [kind_of(program) for program in device.programs] == [(LAYERS, 3), (LAYERS, 2)]


@pytest.mark.parametrize("bits", [0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff])
@pytest.mark.parametrize("inverse", [0, 2**16])
def test_bad_logits(device, bits, inverse):
    good = greedy(7)
    answer(device, [*good, ([1, 2], np.array([bits, 0], np.uint32).view(np.float32))])
    assert_fails(run(device, inverse=inverse), Error.BAD_LOGITS, bits, 6)
    told = output(device)
    assert (told["count"], told["reason"]) == (1, Reason.NONE)
    assert told["decode_cycles"] > 2000


def test_bad_candidate(device):
    """A token that is none is not run."""
    answer(device, greedy(1000))
    assert_fails(run(device), Error.BAD_TOKEN, 1000, 5)
    assert output(device)["count"] == 0

# Errors and Time-outs -----------------------------------------------------------------------------

@pytest.mark.parametrize("errors, ssm_errors", [(1, 0), (0x85, 0), (0, 2), (3, 4)])
@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("deaf", [0, 1])
def test_errors(device, errors, ssm_errors, at, deaf):
    """Of any program. What was done before is told; the next job finds the engines idle."""
    answer(device, greedy(7, 8))
    handler = device.handlers["program"]

    def failing(program):
        if len(device.programs) == at + 1:
            device.set(program_errors=errors, ssm_errors=ssm_errors)
            device.csr("program_index", 77)
        handler(program)

    device.set(deaf=deaf)
    device.on("program", failing)
    result = run(device, tokens=2) # LAYERS, LAYERS, HEAD, LAYERS, HEAD.
    assert_fails(result, Error.GATEWARE, errors | ssm_errors << 8 | 77 << 16, (0, 3, 5, 5, 6)[at])
    told = output(device)
    assert told["prefill_read"] == 320*BEAT*min(at, 3) and told["decode_read"] == 320*BEAT*max(at - 3, 0)
    assert result["bytes_read_low"] == 320*BEAT*at
    assert told["count"] == (at > 2)
    assert device.csr("program_errors") == device.csr("ssm_errors") == 0
    answer(device, greedy(7))
    assert_done(run(device, tokens=1), 5)


@pytest.mark.parametrize("sizes", [dict(), dict(state_bytes=0x40000, window_bytes=0x1000)])
def test_own_timeout_is_the_hosts(device, sizes):
    """Both go by operations/timeouts.py."""
    write_image(device, image_words(**sizes, zero_window=0x1000))
    words  = HEAD | sizes
    device.set(hang=1, access_cycles=100)
    device.csr("program_index", 77)
    result = run(device, session_in=DATA_BASE + 0x800000, session_out=DATA_BASE + 0x900000)
    assert_fails(result, Error.TIMEOUT, 77)
    program = entry(LAYERS, 3)
    limit   = program_timeout(program["descriptors"], program["tape_beats"]*BEAT, 3, words["state_bytes"] + words["window_bytes"])
    assert 0 <= result["cycles_low"] - limit < 100_000
    device.set(hang=0, access_cycles=8)
    answer(device, greedy(7))
    assert_done(run(device, tokens=1), 5)


def test_slow_programs(device):
    """One that takes almost as long as it may, is not late; and the job as a whole has no other limit."""
    program = entry(LAYERS, 1)
    device.set(program_cycles=program_timeout(program["descriptors"], program["tape_beats"]*BEAT, 1, SESSION) - 5000)
    answer(device, greedy(*range(10)))
    device.write(PROMPT, bytes(4))
    assert_done(run(device, [1], tokens=10), 10)


def test_timeout_of_the_job(device):
    """For all passes together, also of one that is completed too late."""
    answer(device, greedy(*range(20)))
    cycles = run(device, tokens=20)["cycles_low"]
    for timeout in (1, 500, cycles//2):
        answer(device, greedy(*range(20)))
        result = run(device, tokens=20, timeout=timeout)
        assert Error(result["error"]) == Error.TIMEOUT
        assert result["cycles_low"] < timeout + 5000
    assert output(device)["count"] in range(8, 13)
    answer(device, greedy(*range(20)))
    assert_done(run(device, tokens=20, timeout=2*cycles), 24)


def test_reboot_request_ends_it(device):
    device.set(hang=1)
    device.on("program", lambda program: device.csr("mailbox_boot", 2**32 - 1))
    result = run(device)
    assert_fails(result, Error.TIMEOUT, 0)
    assert result["cycles_low"] < 10_000


def test_stuck_reset(device):
    """Engines that do not come back fail this job and the next, in bounded time."""
    device.set(hang=1, stuck=1, access_cycles=1000)
    assert_fails(run(device, timeout=5000), Error.TIMEOUT, 0)
    assert_fails(run(device, timeout=5000), Error.TIMEOUT, 0)
    assert not device.programs
    device.set(hang=0, stuck=0, access_cycles=8)
    answer(device, greedy(7))
    assert_done(run(device, tokens=1), 5)


def test_missing_units(tmp_path):
    """Without one of the units no model runs."""
    units  = ("MOVE", "GEMV", "VECTOR", "SSM")
    device = Device(native.build(str(tmp_path), CONFIG, program=ProgramConfig(units=units)))
    device.power_up()
    assert device.info()["engines"][Engine.PROGRAM]["units"] == 15
    assert_fails(device.run(**job()), Error.BAD_OPCODE, Opcode.GENERATE)
    device.close()
