"""Packet filters by libnftables, without a process for each set of rules."""

from __future__ import annotations

import ctypes
import errno
from typing import ClassVar

LIBRARY = "libnftables.so.1"


class Nft:
    """A handle on the packet filter of the network namespace in which it was made."""

    _library: ClassVar[ctypes.CDLL | None] = None

    @classmethod
    def load(cls) -> ctypes.CDLL:
        """Load the library once. OSError when it is not installed."""
        if cls._library is None:
            try:
                library = ctypes.CDLL(LIBRARY)
            except OSError:
                raise OSError(errno.ENOENT, f"{LIBRARY} is missing: run `apt-get install nftables`") from None
            library.nft_ctx_new.restype = ctypes.c_void_p
            library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
            library.nft_ctx_free.argtypes = (ctypes.c_void_p,)
            library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
            for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
                function = getattr(library, name)
                function.restype, function.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
            for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
                getattr(library, name).argtypes = (ctypes.c_void_p,)
            library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
            cls._library = library
        return cls._library

    def run(self, commands: str) -> str:
        """Carry the commands out, all of them or none, and return what they print. OSError when they can't be."""
        library = self.load()
        context = library.nft_ctx_new(0)
        if not context:
            raise OSError("the packet filter could not be reached")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
                said = library.nft_ctx_get_error_buffer(context).decode(errors="replace").strip()
                raise OSError(f"the packet filter refused its rules: {said[:300]}")
            return str(library.nft_ctx_get_output_buffer(context).decode(errors="replace"))
        finally:
            library.nft_ctx_free(context)
