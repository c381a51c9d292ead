module github.com/millrace-ai/millrace

go 1.26
