// Package source finds a model where it is and opens it: a folder, an archive
// (tar, plain or compressed with gzip or zstd), a prefix of S3 or an archive in
// S3. Pull copies what is in S3 to a folder.
//
// From S3 nothing touches the disk. A prefix is listed once, and every object
// is pinned to the ETag it had then: what is replaced meanwhile is refused, not
// mixed. Text files are read whole. Of the weights the headers are read first,
// then all tensors, in ranges over several connections; a connection fills one
// small buffer after the other, and each is handed over as soon as it is full,
// so that what is resident beside the weights does not grow with the number or
// the length of the ranges. A range that breaks off goes on where it stopped, a
// slow one is overtaken by a second connection, the number of connections
// follows what the link gives, and where S3 keeps a checksum of the whole
// object it is compared at the end.
//
// An archive is read once, front to back. Text files and weights are kept in
// memory as they arrive, and the weights leave it as the engine takes them.
//
// Errors are one line that names bucket and key and what is missing.
package source
