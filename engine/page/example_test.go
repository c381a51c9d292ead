package page_test

import (
	"fmt"

	"github.com/millrace-ai/millrace/engine/page"
)

// A sequence computes its prompt and leaves the full pages in the cache. A second
// one with the same beginning finds them.
func Example() {
	prompt := make([]int32, 40) // two full pages of 16 tokens, and 8 tokens more
	for i := range prompt {
		prompt[i] = int32(i)
	}
	root := page.Root() // of a model without anything else that its keys depend on
	keys := root.AppendKeys(nil, prompt)

	cache := page.NewCache([]int{0}, 8, 0) // one group without a window, eight pages
	pool := cache.Pages
	var pages []page.ID
	for range 3 {
		pages = append(pages, pool.Alloc(0))
	}
	for i, key := range keys { // of the full pages, once they are computed
		pool.Register(pages[i], key)
	}
	pool.Release(pages) // the sequence has ended

	other := append(append([]int32{}, prompt[:32]...), 99, 98, 97)
	hit := cache.Prefix(root.AppendKeys(nil, other))
	fmt.Println(hit.Pages*page.Tokens, "of", len(other), "tokens are cached")
	for _, id := range hit.Groups[0] {
		pool.Share(id)
	}
	fmt.Println(pool.Free(), "of", pool.Total(), "pages are free")
	// Output:
	// 32 of 35 tokens are cached
	// 6 of 8 pages are free
}
