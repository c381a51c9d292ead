// Command hub serves a folder as a model of a stand-in for the Hugging Face hub,
// for clients in other languages and for measurements:
//
//	hub ORG/NAME FOLDER
//
// It prints its address, to which HF_ENDPOINT is to be set, and ends when its
// standard input does.
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/millrace-ai/millrace/container/source/hubtest"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hub ORG/NAME FOLDER")
		os.Exit(2)
	}
	files, err := readFolder(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "hub:", err)
		os.Exit(1)
	}
	hub, stop := hubtest.New()
	defer stop()
	hub.Commit(os.Args[1], "main", files)
	fmt.Println(hub.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// readFolder reads all files below a folder into memory.
func readFolder(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	fsys := os.DirFS(dir)
	err := fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files[name], err = fs.ReadFile(fsys, name)
		}
		return err
	})
	return files, err
}
