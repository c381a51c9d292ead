//! Tells the compiler where daulet/tokenizers' lib.rs lies: in the Go module
//! cache, so that go.sum pins it and no copy of it is kept here.

use std::process::Command;

const MODULE: &str = "github.com/daulet/tokenizers";

fn main() {
    println!("cargo:rerun-if-env-changed=DAULET_TOKENIZERS_DIR");
    let dir = std::env::var("DAULET_TOKENIZERS_DIR").unwrap_or_else(|_| module_dir());
    let source = format!("{dir}/src/lib.rs");
    if !std::path::Path::new(&source).is_file() {
        panic!("{source} is missing: run `go mod download {MODULE}` first");
    }
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rustc-env=DAULET_TOKENIZERS_LIB={source}");
}

fn module_dir() -> String {
    let out = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", MODULE])
        .output()
        .expect("go is needed to find the source of daulet/tokenizers");
    if !out.status.success() {
        panic!("go list -m {MODULE}: {}", String::from_utf8_lossy(&out.stderr));
    }
    String::from_utf8_lossy(&out.stdout).trim().to_string()
}
