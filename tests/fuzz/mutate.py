"""Inputs that are wrong in one place or a few, drawn from good ones: what lies around the damage is whole.

A damage to bytes alone mostly ends at a checksum. So values are changed inside of the structure, and
checksums are made right again (`repaired`), that the damage is met by what comes after them.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

HUGE = 10**400
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 31, 2**31, 2**63, 2**64, -(2**63), 300_000_000, HUGE, 0.5, -0.5, 1e-320,
    1e308, -1e308, float("nan"), float("inf"), "", "x", "1", "a\nb", "\x1b]0;title\x07", "\ud800", "\udcff",
    "\u202egpj", "../../etc/passwd", "/etc/passwd", "\n/../../x", "a\0b", "..", ".", "~", "%s{0}", "x" * 5000,
    [], [[]], [{}], [None], {}, {"x": {}}, {"": None}, [1] * 300,
)  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"


def changed_json(good: bytes, draw: random.Random) -> bytes:
    """A JSON text with one to three values replaced, removed, doubled or renamed; at times bytes."""
    if draw.random() < 0.2:
        return changed_bytes(good, draw)
    values = json.loads(good)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        values = _changed(values, draw)
    return json.dumps(values).encode("utf-8", "surrogatepass")


def changed_lines(good: bytes, draw: random.Random) -> bytes:
    """JSON lines, of which one is changed."""
    lines = good.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = changed_json(lines[at], draw).replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n"


def changed_text(good: bytes, draw: random.Random) -> bytes:
    """A text of lines `name = value`, with the value of one line replaced; at times bytes."""
    if draw.random() < 0.2:
        return changed_bytes(good, draw)
    lines = good.decode().splitlines()
    at = draw.randrange(len(lines))
    name, equals, _ = lines[at].partition(" = ")
    odd = draw.choice([*ODD, "inf", "nan", "1979-05-27", "0x", "1_0", "{a=1}", "[[a]]", '"""'])
    text = odd if isinstance(odd, str) and draw.random() < 0.5 else json.dumps(odd)
    lines[at] = draw.choice((f"{name}{equals}{text}", f"{name}", f"[{name}]", f"{lines[at]}\n{lines[at]}"))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def changed_bytes(good: bytes, draw: random.Random) -> bytes:
    """Bytes with bits turned, a piece cut out, doubled or overwritten, or the end cut off."""
    data = bytearray(good)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if not data:
            break
        at, size = draw.randrange(len(data)), draw.choice((1, 1, 2, 4, 8, 64))
        kind = draw.randrange(6)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            fill = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"[", b'"', b"\n"))
            data[at : at + size] = fill * len(data[at : at + size])
        elif kind == 4:
            data[at : at + size] = draw.randbytes(len(data[at : at + size]))
        else:
            del data[at:]
    return bytes(data)


def changed_png(good: bytes, draw: random.Random) -> bytes:
    """A PNG of which one chunk's content is changed, all sums right; image data before compression."""
    chunks = _png_chunks(good)
    at = draw.randrange(len(chunks))
    kind, content = chunks[at]
    if kind == b"IDAT" and draw.random() < 0.7:
        content = zlib.compress(changed_bytes(zlib.decompress(content), draw))
    else:
        content = changed_bytes(content, draw)
    chunks[at] = (kind, content)
    if draw.random() < 0.2:
        chunks.insert(draw.randrange(len(chunks)), chunks[draw.randrange(len(chunks))])
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return PNG + body


def changed_zip(good: bytes, draw: random.Random, inner: Callable[[bytes, random.Random], bytes]) -> bytes:
    """A zip of which one entry is changed by `inner`, or renamed, with all sums right."""
    if draw.random() < 0.2:
        return changed_bytes(good, draw)
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        entries = [(entry, file.read(entry)) for entry in file.infolist()]
    at = draw.randrange(len(entries))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for index, (entry, data) in enumerate(entries):
            name = entry.filename
            if index == at and draw.random() < 0.15:
                name = draw.choice(("../x", "/x", name + "/", "x", name.upper(), "a\\b", "\u202ex"))
            new = zipfile.ZipInfo(name, entry.date_time)
            new.compress_type, new.external_attr = entry.compress_type, entry.external_attr
            file.writestr(new, inner(data, draw) if index == at else data)
    return buffer.getvalue()


def changed_header(good: bytes, draw: random.Random, size: int = 348) -> bytes:
    """Bytes of which mostly the first `size`, a header of fixed fields, are changed in their place."""
    if draw.random() < 0.2:
        return changed_bytes(good, draw)
    data = bytearray(good)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(size // 2) * 2
        kind = draw.choice(("<h", "<f", "<i"))
        value = (
            draw.choice((0, -1, 1, 2, 7, 127, 255, 32767))
            if kind != "<f"
            else draw.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30))
        )
        data[at : at + struct.calcsize(kind)] = struct.pack(kind, value)
    return bytes(data)


def changed_gzip(good: bytes, draw: random.Random) -> bytes:
    """A gzip file whose content is changed by `changed_header`, its sum right; at times bytes."""
    if draw.random() < 0.2:
        return changed_bytes(good, draw)
    return gzip.compress(changed_header(gzip.decompress(good), draw), mtime=0)


def changed_safetensors(good: bytes, draw: random.Random) -> bytes:
    """A safetensors file with a tensor that is changed, removed, renamed or doubled, and offsets that are
    right again; at times a header that is changed as JSON, or bytes."""
    if draw.random() < 0.1:
        return changed_bytes(good, draw)
    (length,) = struct.unpack("<Q", good[:8])
    if draw.random() < 0.4:
        header = changed_json(good[8 : 8 + length], draw)
        return struct.pack("<Q", len(header)) + header + good[8 + length :]
    tensors = []
    for name, one in json.loads(good[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = one["data_offsets"]
            tensors.append((name, one["dtype"], one["shape"], good[8 + length + start : 8 + length + end]))
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(tensors))
        tensors[at : at + 1] = _changed_tensor(*tensors[at], draw)
        if not tensors:
            break
    values, data = {}, b""
    for name, kind, shape, content in tensors:
        values[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    header = json.dumps(values).encode()
    return struct.pack("<Q", len(header)) + header + data


def _changed_tensor(
    name: str, kind: str, shape: list[int], content: bytes, draw: random.Random
) -> list[tuple[str, str, list[int], bytes]]:
    """What stands in a float32 tensor's place: each has as many bytes as its type and shape ask for."""
    how = draw.randrange(7)
    if how == 0:
        return []
    if how == 1:
        return [(draw.choice(("x", "", "a.b", "\x1b[2J", "../x", "encoder." + name)), kind, shape, content)]
    if how == 2:
        return [(name, kind, shape, content), (name + "x", kind, shape, content)]
    if how == 3 and kind == "F32":
        return [(name, draw.choice(("I32", "U32")), shape, content)]
    if how == 4 and kind == "F32":
        return [(name, draw.choice(("F16", "BF16", "I16")), [*shape, 2], content)]
    if how == 5:
        return [(name, kind, draw.choice(([1, *shape], [*shape, 1], shape[::-1])), content)]
    pieces = bytearray(content)
    for _ in range(min(3, len(pieces) // 4)):  # not a number, infinite, and others
        where = draw.randrange(len(pieces) // 4) * 4
        pieces[where : where + 4] = draw.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 4, b"\1\0\0\0"))
    return [(name, kind, shape, bytes(pieces))]


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], len(PNG)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IDAT" == (chunks[-1][0] if chunks else b""):  # one stream, in several chunks
            content = chunks.pop()[1] + content
        chunks.append((kind, content))
        at += 12 + length
    return chunks


def _changed(values: Any, draw: random.Random) -> Any:
    """One place of a parsed JSON text, changed; the whole of it seldom."""
    values = copy.deepcopy(values)
    places = list(_places(values))
    if not places or draw.random() < 0.02:
        return draw.choice(ODD)
    holder, key = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(("x", "", "schema", "a\nb", "\x1b[2J", "\ud800", "../x", "x" * 300))] = holder.pop(
            key
        )
    elif kind == 2 and isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif kind == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = draw.choice(
            (-holder[key], holder[key] * 2**20, str(holder[key]), holder[key] + 1, [holder[key]])
        )
    elif kind == 4:  # a value of another place
        other, name = draw.choice(places)
        holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))
    return values


def _places(value: Any) -> Any:
    """Every place below a value: the object or list, and the name or index in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inner):
        yield value, key
        yield from _places(one)
