// Package config reads the server's configuration, once, into one struct.
//
// A value comes from the command line, else from the environment, else from
// the config file, else it is the default; an empty variable counts as absent.
// Flags are TGI's launcher flags and a few of our own, a flag's variable is
// its name in upper case, SageMaker's names for some of them are understood,
// and the keys of the file are the flags' names.
//
// Serve is what the rest reads. Loader finds the values and remembers where
// each was found, so that an error, `millrace env` and the log can say so.
//
// Not here: what depends on the model or on the machine's memory (main).
package config
