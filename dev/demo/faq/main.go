// Command faq writes docs/faq.md from the text that the demo model learns from.
// Run it at the top of the repository, as `make faq` does.
package main

import (
	"fmt"
	"os"

	"github.com/millrace-ai/millrace/dev/demo/guide"
)

func main() {
	chapters, err := guide.Read("dev/demo/text")
	if err == nil {
		err = os.WriteFile("docs/faq.md", guide.FAQ(chapters), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faq:", err)
		os.Exit(1)
	}
}
