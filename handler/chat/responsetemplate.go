package chat

type responseTemplate struct{}

func (t *responseTemplate) texts() []string { return nil }
