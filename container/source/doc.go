// Package source finds a model where it is and opens it: a folder, an archive
// (tar, plain or compressed with gzip or zstd), a prefix of S3, an archive in S3,
// or a model of the Hugging Face hub. Pull copies one from S3 or the hub to a
// folder.
//
//	Open                                    Pull
//	 │ hub: Hub.Snapshot ───────────────┐    │
//	 │ folder: weights.Folder           │    │
//	 │ archive: archive ◄─ prefetcher   │    │      what a model is read through
//	 │ prefix: tree            │        ▼    ▼
//	 │           │             │       puller       writes files, verifies, resumes
//	 │           ▼             │          │
//	 │        stream ◄─────────┼──────────┘         ranges at once, hedged; window
//	 │           ▼             ▼
//	 │        rangeReader                           one range; continues after a fault
//	 │           ▼
//	 │        remoteFile: object (of a bucket), hubFile (of a hubRevision)
//
// From S3 nothing touches the disk. A prefix is listed once, and every object
// is pinned to the ETag it had then: one that is replaced meanwhile is refused,
// not mixed. Text files are read whole. Of the weights the headers are read first,
// then all tensors, in ranges over several connections. A connection fills one
// small buffer after another, and each is handed over as soon as it is full, so
// that what is resident beside the weights does not grow with the number or the
// length of the ranges. A range that breaks off continues where it stopped, a slow
// one is hedged by a second connection, the number of connections follows what the
// link gives, and where S3 keeps a checksum of the whole object it is compared at
// the end.
//
// A model of the hub is resolved to a commit and downloaded into the cache of
// huggingface_hub, in the same ranges; see Hub and hubCache. Its token is sent to
// the hub alone, never to where the hub redirects.
//
// An archive is read once, front to back. Text files and weights are kept in
// memory as they arrive, and the weights leave it as the engine takes them.
//
// Errors are one line that names the place and what to do.
package source
