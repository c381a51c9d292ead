package body

// Map reads an object whose names are data, of any number and as they come.
// For each it calls value, which must read exactly one value. want names the
// expected type.
func (r *Reader) Map(want string, value func(name string) error) error {
	if r.next() != '{' {
		return r.unexpected(want)
	}
	if err := r.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := r.moreFields(first)
		if err != nil {
			return err
		}
		if !more {
			r.leave()
			return nil
		}
		b, err := r.text()
		if err != nil {
			return err
		}
		name := string(b)
		if err := r.colon(); err != nil {
			return err
		}
		if err := value(name); err != nil {
			return Within(err, Cut(name))
		}
	}
}
