// What the CDK makes of examples/cdk/typescript: its templates, by the stacks' names. As a program it prints them.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url)); // build/clients/node
const examples = join(here, "../../../examples");

export function synthesize() {
  const copy = mkdtempSync(join(here, "cdk-")); // below the packages, where the compiler looks for them
  try {
    for (const folder of ["cdk/typescript", "cloudformation"]) cpSync(join(examples, folder), join(copy, folder), { recursive: true });
    const cwd = join(copy, "cdk/typescript");
    const run = (...args) => execFileSync(process.execPath, args, { cwd, env: { ...process.env, CDK_OUTDIR: join(copy, "out") }, stdio: "pipe" });
    run(createRequire(import.meta.url).resolve("typescript/bin/tsc"));
    run("app.js");
    return Object.fromEntries(["chat", "small"].map((name) => [name, JSON.parse(readFileSync(join(copy, `out/${name}.template.json`)))]));
  } catch (error) {
    throw new Error(`${error.message}\n${error.stdout ?? ""}`); // where the compiler says what is wrong
  } finally {
    rmSync(copy, { recursive: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) console.log(JSON.stringify(synthesize()));
