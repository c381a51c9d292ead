"""Writes what ptxas says of each kernel, kept by `make gpu` in ../build/cuda/gpu, as a table.

    python3 report.py >RESOURCES.md
"""

import pathlib
import re
import subprocess

here = pathlib.Path(__file__).parent
built = here.parent / "build" / "cuda"

# Of a multiprocessor: warps, blocks, bytes of shared memory. All have 65,536 registers,
# given to warps by 256, and keep 1 KiB of shared memory for each block.
LIMITS = {"80": (64, 32, 164), "86": (48, 16, 100), "89": (48, 24, 100), "90a": (64, 32, 228)}


def threads_of(source):
    """The most threads of a block, by kernel."""
    constants = dict(re.findall(r"(k\w+) = (k\w+|\d+)", source))

    def number(text):
        return number(constants[text]) if text in constants else int(text)

    found = {k: number(n) for n, k in re.findall(r"__launch_bounds__\((\w+)(?:, \d+)?\)\s+(\w+)", source)}
    for kernel, threads in re.findall(r"MR_LAUNCH\((\w+), .*?, (\w+), stream", source):
        if threads in constants or threads.isdigit():
            found.setdefault(kernel, number(threads))
    return found


def dynamic_of(source, kinds):
    """Threads of a block and bytes of dynamic shared memory, by kernel, of those that are asserted."""
    tilings = ["Decode", "Few", "Many"]
    found = {f"tiled_kernel<{kinds[kind]}, {tilings.index(tiling)}>": (int(threads), int(size))
             for kind, tiling, threads, size in re.findall(r"takes<(MR_\w+), k(\w+)>\((\d+), (\d+)\)", source)}
    for shape, threads, size in re.findall(r"takes<((?:\d+, \w+, )?(?:true|false))>\((\d+), (\d+)\)", source):
        kernel = "attend_tiled_kernel" if "," in shape else "attend_latent_kernel"
        found[f"{kernel}<{shape}>"] = (int(threads), int(size))
    return found


def occupancy(arch, threads, registers, shared):
    warps, blocks, memory = LIMITS[arch]
    each = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // each
    by_memory = memory * 1024 // (shared + 1024)
    return 100 * min(blocks, warps // each, by_registers, by_memory) * each // warps


def main():
    rows, archs = [], set()
    kinds = dict(re.findall(r"^  (MR_\w+) = (\d+),", (here.parent / "engine/device/abi/millrace.h").read_text(), re.M))
    for log in sorted(built.glob("gpu/kernels/*.ptxas")):
        file = log.name.removesuffix(".ptxas")
        headers = sorted((here / "kernels").glob("*.cuh"))
        source = "".join(path.read_text() for path in [*headers, here / "kernels" / file])
        threads, dynamic = threads_of(source), dynamic_of(source, kinds)
        entries = re.findall(
            r"Compiling entry function '(\S+)' for 'sm_(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
            r".*?Used (\d+) registers(.*?)\n", log.read_text(), re.S)
        names = subprocess.run(["c++filt", *(e[0] for e in entries)], capture_output=True, text=True, check=True).stdout.splitlines()
        kernels = {}
        for name, (_, arch, stack, stores, loads, registers, rest) in zip(names, entries):
            kernel = re.search(r"(\w+_kernel(?:<[^>]*>)?)", name)[1]
            static = re.search(r"(\d+) bytes smem", rest)
            shared = (int(static[1]) if static else 0) + dynamic.get(kernel, (0, 0))[1]
            kernels.setdefault(kernel, {})[arch] = (int(registers), shared, int(stores) + int(loads), int(stack))
            archs.add(arch)
        for kernel, by in sorted(kernels.items()):
            rows.append((file, kernel, dynamic[kernel][0] if kernel in dynamic else threads[kernel.split("<")[0]], by))
    archs = sorted(archs)
    print("# What the kernels take\n")
    print("Written by `make -C cuda report` from what ptxas said (nvcc 13.0) of each kernel: registers of a thread, and of a\n"
          "multiprocessor's warps those that can be there at once. Nothing here was measured on a GPU.\n")
    print("| file | kernel | threads | shared memory | " + " | ".join(f"sm_{a}" for a in archs) + " | spilled bytes | stack |")
    print("|---|---|--:|--:|" + "--:|" * len(archs) + "--:|--:|")
    for file, kernel, threads, by in rows:
        cells = [f"{by[a][0]}, {occupancy(a, threads, by[a][0], by[a][1])} %" if a in by else "" for a in archs]
        most = lambda i: max(v[i] for v in by.values())
        print(f"| {file} | `{kernel}` | {threads} | {most(1)} | " + " | ".join(cells) + f" | {most(2)} | {most(3)} |")
    spill = sum(max(v[2] for v in by.values()) > 0 for *_, by in rows)
    size = (built / "libmillrace_cuda.so").stat().st_size / 1e6
    print(f"\nOf {len(rows)} kernels {spill} spill registers. The library has {size:.1f} MB.")


main()
