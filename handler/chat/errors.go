package chat

import "fmt"

// Error is a request that cannot be served: status 422.
type Error struct {
	Type string // error_type of the answer
	Msg  string // error of the answer
}

func (e *Error) Error() string { return e.Msg }

// LengthError is a prompt that has more bytes than Request.MaxBytes.
type LengthError struct{ Limit int }

func (e *LengthError) Error() string {
	return fmt.Sprintf("the prompt has more than %d bytes", e.Limit)
}

// Unwrap makes it an *Error for those that know of no limits.
func (e *LengthError) Unwrap() error { return &Error{"validation", e.Error()} }

func templateError(format string, args ...any) error {
	return &Error{"template_error", "Template error: " + fmt.Sprintf(format, args...)}
}

func toolError(format string, args ...any) error {
	return &Error{"tool_error", "Tool error: " + fmt.Sprintf(format, args...)}
}

// missingVariable has TGI's misspelling, which clients may look for.
func missingVariable(name string) error {
	return &Error{"missing_template_variable", "Missing template vatiable: " + name}
}
