package openapi

// Number is the schema of a number from low to high.
func Number(low, high float64, text string) Object {
	return Object{"type": "number", "format": "float", "minimum": low, "maximum": high, "description": text}
}

// Count is the schema of a number that counts.
func Count(text string) Object {
	return Object{"type": "integer", "format": "int32", "minimum": 0, "description": text}
}

// Bool is the schema of a flag that is def by default.
func Bool(def bool, text string) Object {
	return Object{"type": "boolean", "default": def, "description": text}
}

// TokenIDs is the schema of a list of token ids.
func TokenIDs(text string) Object {
	return Object{"type": "array", "items": Object{"type": "integer", "minimum": 0}, "description": text}
}

// Strings is the schema of a list of strings.
func Strings(text string) Object {
	return Object{"type": "array", "items": Object{"type": "string"}, "description": text}
}

// JSONSchema is the schema of a JSON schema, or of a string that holds one.
func JSONSchema(text string) Object {
	return Object{"anyOf": []Object{{"type": "object"}, {"type": "string"}}, "description": text}
}

// Ref refers to a schema of the contract by its name.
func Ref(schema string) Object { return Object{"$ref": "#/components/schemas/" + schema} }
