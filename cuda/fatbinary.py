"""fatbinary for clang, by the library nvFatbin: the program itself is not on PyPI for CUDA 12.

    python3 fatbinary.py LIBNVFATBIN -64 --create OUT --image=profile=sm_80,file=CUBIN --image=profile=compute_80,file=PTX ...
"""

import ctypes
import re
import sys

library = ctypes.CDLL(sys.argv[1])
library.nvFatbinGetErrorString.restype = ctypes.c_char_p


def call(name, *args):
    if result := getattr(library, name)(*args):
        sys.exit(f"fatbinary: {name}: {library.nvFatbinGetErrorString(result).decode()}")


# Compressed as drivers of all CUDA 12 read it: the other modes are newer.
options = (ctypes.c_char_p * 1)(b"-compress-mode=speed")
handle = ctypes.c_void_p()
call("nvFatbinCreate", ctypes.byref(handle), options, ctypes.c_size_t(len(options)))
out = None
args = iter(sys.argv[2:])
for arg in args:
    if arg == "--create":
        out = next(args)
    elif image := re.fullmatch(r"--image=profile=(sm|compute)_(\w+),file=(.*)", arg):
        kind, arch, file = image.groups()
        with open(file, "rb") as f:
            code = f.read()
        if kind == "sm":
            call("nvFatbinAddCubin", handle, code, ctypes.c_size_t(len(code)), arch.encode(), None)
        else:
            code += b"\0"
            call("nvFatbinAddPTX", handle, code, ctypes.c_size_t(len(code)), arch.encode(), None, None)
    elif arg != "-64":
        sys.exit(f"fatbinary: {arg} is not known")
if out is None:
    sys.exit("fatbinary: --create is missing")
size = ctypes.c_size_t()
call("nvFatbinSize", handle, ctypes.byref(size))
fat = ctypes.create_string_buffer(size.value)
call("nvFatbinGet", handle, fat)
with open(out, "wb") as f:
    f.write(fat.raw)
