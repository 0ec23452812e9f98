"""Writes the assembly of a patch's load config and hotpatch table, from the format reference.

usage: table.py LLVM_VERSION BASE_DLL KIND MACHINE_FLAG SEQUENCE [PATCH_DLL]

The patch is linked twice: the second time the bytes of its own helper are known from the first.

RVAs of the base come from llvm-readobj; the header's two words and the original bytes at the
entries are read from the file itself.
"""

import re
import struct
import subprocess
import sys

version, base, kind, flag, sequence, *built = sys.argv[1:]



class Image:
    """The facts of one DLL that the table needs."""

    def __init__(self, path):
        self.data = open(path, "rb").read()
        nt = struct.unpack_from("<I", self.data, 0x3C)[0]
        self.stamp = struct.unpack_from("<I", self.data, nt + 8)[0]
        self.checksum = struct.unpack_from("<I", self.data, nt + 24 + 64)[0]
        flags = ["--coff-exports", "--sections", "--coff-imports"]
        readobj = [f"llvm-readobj-{version}", *flags, path]
        self.text = subprocess.check_output(readobj, text=True)
        found = re.findall(r"Name: (\w+)\s+RVA: (0x[0-9A-F]+)", self.text)
        self.exports = {name: int(rva, 16) for name, rva in found}
        self.sections = re.findall(
            r"VirtualAddress: (0x[0-9A-F]+)\s+RawDataSize: (\d+)\s+"
            r"PointerToRawData: (0x[0-9A-F]+)",
            self.text,
        )

    def original(self, name):
        """The first four bytes of an exported function."""
        rva = self.exports[name]
        for start, size, offset in self.sections:
            start, size, offset = int(start, 16), int(size), int(offset, 16)
            if start <= rva < start + size:
                return struct.unpack_from("<I", self.data, offset + rva - start)[0]
        raise SystemExit(f"no bytes at {name}")


target = Image(base)
exports, text = target.exports, target.text

# The slots of imported functions, in the order of the import address table.
slots = {}
for table in re.findall(r"Import \{(.*?)\n\}", text, re.S):
    at = int(re.search(r"ImportAddressTableRVA: (0x[0-9A-F]+)", table).group(1), 16)
    for index, name in enumerate(re.findall(r"Symbol: (\w+)", table)):
        slots[name] = at + 8 * index

forward = {
    "older": ["duplicate", "get_counter"],
}.get(kind, ["parse_record", "score", "duplicate", "fill"])

out = []
emit = out.append
emit('.section .rdata$table,"dr"')
emit(".globl hotpatch_table")
emit(".balign 8")
emit("hotpatch_table:")
# IMAGE_HOT_PATCH_INFO, version 3.
emit("  .long 3, hotpatch_end - hotpatch_table, %s, 0x1c, 1, 0, 1, 0x20" % sequence)
# IMAGE_HOT_PATCH_BASE.
emit(f"  .long 1, {flag}, {target.stamp:#x}, {target.checksum:#x}, 0, 0, 0x40, 0")


def chunk(kind, records):
    emit(f"  .long {kind | len(records):#x}")
    for written, other, extra in records:
        for value in (written, other):
            emit(f"  .rva {value}" if isinstance(value, str) else f"  .long {value:#x}")
        emit(f"  .long {extra}")


helper = hex(Image(built[0]).original("weigh_copy")) if built else "0"
if kind != "older":
    chunk(0x8001C000, [("weigh_copy", exports["weigh"], helper)])
    chunk(0x8002C000, [("slot_counter", exports["counter"], 0)])
indirect = [("slot_malloc", slots["malloc"], 0), ("slot_memcpy", slots["memcpy"], 0)]
if kind != "older":
    indirect.append(("slot_free", slots["free"], 0))
chunk(0x8005C000, indirect)
chunk(0x0001C000, [(exports[n], f"new_{n}", f"{target.original(n):#x}") for n in forward])
emit("  .long 0")
emit("hotpatch_end:")
emit('.section .rdata,"dr"')
emit(".globl _load_config_used")
emit(".balign 8")
emit("_load_config_used:")
emit("  .long 0x140")
emit("  .zero 0xec")
emit("  .rva hotpatch_table")
emit("  .zero 0x4c")
print("\n".join(out))
