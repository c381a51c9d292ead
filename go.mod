module github.com/millrace-ai/millrace

go 1.26.0

require (
	github.com/alecthomas/kong v1.17.0
	go.yaml.in/yaml/v3 v3.0.6
)
