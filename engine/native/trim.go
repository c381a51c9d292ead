package native

/*
#include <malloc.h>
*/
import "C"

// Trim gives memory back to the system that the library has freed. The
// allocator keeps what it got for large work, once for each thread that did
// some: without this, one text after the other would take memory as if all
// were tokenized at once.
func Trim() { C.malloc_trim(0) }
