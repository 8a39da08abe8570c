"""Unpacks a compressed kernel image: booted as an ELF file it starts in half the time under software emulation.

usage: unpack-kernel.py vmlinuz vmlinux

The place of the payload is in the setup header (Documentation/arch/x86/boot.rst: payload_offset, payload_length).
"""
import lzma
import struct
import subprocess
import sys

image = open(sys.argv[1], "rb").read()
setup = (image[0x1F1] or 4) + 1
offset, length = struct.unpack_from("<II", image, 0x248)
payload = image[setup * 512 + offset :][:length]
if payload[:6] == b"\xfd7zXZ\0":
    kernel = lzma.LZMADecompressor().decompress(payload)
elif payload[:4] == b"\x28\xb5\x2f\xfd":
    kernel = subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE, check=False).stdout
else:
    sys.exit(f"unknown compression: {payload[:6].hex()}")
if kernel[:4] != b"\x7fELF":
    sys.exit("the payload is no ELF file")
open(sys.argv[2], "wb").write(kernel)
