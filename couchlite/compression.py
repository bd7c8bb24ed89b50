"""Bodies compressed one by one, yet small: zstd with dictionaries learnt from the database's own documents.

Documents of one database resemble each other, and a document alone is too short to compress. A dictionary of
16 KiB makes a 400-byte document about 100 bytes, and both directions take about a microsecond (zstd without
it: 240 bytes).

A frame's first byte names its codec: 0 stored as it is, 1 zstd without a dictionary, 2 and up zstd with
dictionary number N of this database. Dictionaries are never changed nor removed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

DICTIONARY_SIZE_BYTES = 16 * 1024
LEVEL = 3
"""With a dictionary, level 3 is as fast as level 1 on small bodies and smaller."""
TRAIN_AT_BODIES = (1_000, 30_000, 1_000_000)
"""A dictionary is learnt when the database has had so many bodies; later ones know the data better."""
TRAIN_SAMPLES = 1_000
TRAIN_SEGMENT_BYTES = 200
TRAIN_MATCH_BYTES = 8
TRAIN_HASH_BITS = 18
"""With these given, zstd does not try many values for them, which takes five times as long for no gain."""
SMALLEST_COMPRESSED_BYTES = 32
"""Shorter texts are stored as they are: a frame's own header would eat the gain."""

STREAM_LEVEL = 1
STREAM_STEP_BYTES = 16 * 1024
"""So much of a stream is decompressed at once: what comes of it may be a thousand times as long."""

_beside = ThreadPoolExecutor(1, thread_name_prefix="compression")

RAW = 0
PLAIN = 1
"""Compressed without a dictionary; greater numbers are those of dictionaries."""


class BodyCodec:
    """Compresses and restores the bodies of one database in one process, from any thread.

    `load_dictionary(number)` fetches a dictionary, which another process may have added. `newest` is the
    codec that `encode` uses; a stale one costs only size.
    """

    def __init__(self, load_dictionary: Callable[[int], bytes | None], newest: int = PLAIN) -> None:
        self.newest = newest
        self._load = load_dictionary
        self._of_thread = threading.local()  # zstd's contexts must not be shared by threads

    def encode(self, text: bytes) -> tuple[int, bytes]:
        """(codec, data)"""
        if len(text) < SMALLEST_COMPRESSED_BYTES:
            return RAW, text
        codec = self.newest
        data = self._compressor(codec).compress(text)
        return (codec, data) if len(data) < len(text) else (RAW, text)

    def encode_all(self, texts: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """`encode` for many; nearly all of the work is done without holding Python's lock."""
        codec = self.newest
        compressed = self._compressor(codec).multi_compress_to_buffer(list(texts))
        frames = [compressed[at].tobytes() for at in range(len(texts))]
        return [
            (codec, data) if len(data) < len(text) >= SMALLEST_COMPRESSED_BYTES else (RAW, text)
            for text, data in zip(texts, frames, strict=True)
        ]

    def start_encoding(self, texts: Sequence[bytes]) -> Future[list[tuple[int, bytes]]]:
        """`encode_all` in another thread. Returns when that has the lock no more, so that the caller can do
        something else meanwhile."""
        has_begun = threading.Event()

        def encode() -> list[tuple[int, bytes]]:
            has_begun.set()
            return self.encode_all(texts)

        future = _beside.submit(encode)
        has_begun.wait()
        return future

    def _compressor(self, codec: int) -> zstandard.ZstdCompressor:
        try:
            return self._of_thread.compressors[codec]  # type: ignore[no-any-return]
        except (AttributeError, KeyError):
            compressors = self._of_thread.__dict__.setdefault("compressors", {})
            compressor = compressors[codec] = _new_compressor(self._dictionary(codec))
            return compressor

    def decode(self, codec: int, data: bytes) -> bytes:
        return self.decoders()[codec](data)

    def decoders(self) -> Mapping[int, Callable[[bytes], bytes]]:
        """What restores the bodies of each codec; for the calling thread."""
        try:
            return self._of_thread.decoders  # type: ignore[no-any-return]
        except AttributeError:
            decoders = self._of_thread.decoders = _Decoders(self._dictionary)
            return decoders

    def _dictionary(self, codec: int) -> zstandard.ZstdCompressionDict | None:
        if codec == PLAIN:
            return None
        data = self._load(codec)
        if data is None:
            raise KeyError(f"body dictionary {codec} is missing")
        return zstandard.ZstdCompressionDict(data)


class _Decoders(dict[int, Callable[[bytes], bytes]]):
    """Made one by one, as codecs are met."""

    def __init__(self, dictionary: Callable[[int], zstandard.ZstdCompressionDict | None]) -> None:
        super().__init__({RAW: bytes})
        self._dictionary = dictionary

    def __missing__(self, codec: int) -> Callable[[bytes], bytes]:
        decoder: Callable[[bytes], bytes]
        decoder = self[codec] = zstandard.ZstdDecompressor(dict_data=self._dictionary(codec)).decompress
        return decoder


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A stream as one zstd frame with a checksum."""
    compressor = zstandard.ZstdCompressor(level=STREAM_LEVEL, write_checksum=True).compressobj()
    for chunk in chunks:
        if some := compressor.compress(chunk):
            yield some
    yield compressor.flush()


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What `compressed` was given. :raises ValueError: this is nothing that it made."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), STREAM_STEP_BYTES):
                yield decompressor.decompress(chunk[start : start + STREAM_STEP_BYTES])
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if not decompressor.eof:
        raise ValueError("it has no end")


def train(samples: Sequence[bytes]) -> bytes | None:
    """A dictionary learnt from sample bodies, or None when they are too few or have too little in common."""
    try:
        return zstandard.train_dictionary(
            DICTIONARY_SIZE_BYTES,
            list(samples),
            level=LEVEL,
            k=TRAIN_SEGMENT_BYTES,
            d=TRAIN_MATCH_BYTES,
            f=TRAIN_HASH_BITS,
            accel=1,
        ).as_bytes()
    except zstandard.ZstdError:
        return None


def _new_compressor(dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdCompressor:
    if dictionary is None:
        return zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
    dictionary.precompute_compress(level=LEVEL)
    return zstandard.ZstdCompressor(
        level=LEVEL, dict_data=dictionary, write_checksum=False, write_dict_id=False
    )
