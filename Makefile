# Millrace. `make run` and `make test` do all set-up on a machine with Go, cargo, gcc, g++ and make.
