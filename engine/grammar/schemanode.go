package grammar

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A node is a schema inside of a document.
type node struct {
	id      int              // of the document's nodes; boolean schemas have none
	members *jsonObject      // nil for true and false
	never   bool             // false
	parent  *node            // nil for the root
	step    string           // from the parent, a JSON pointer
	base    *url.URL         // what references are relative to
	read    *facts           // what it says, nil until someone asks
	targets map[string]*node // of its references, as far as they were followed
}

// place is where a schema stands, as a JSON pointer.
func (n *node) place() string {
	var steps []string
	for ; n.parent != nil; n = n.parent {
		steps = append(steps, n.step)
	}
	slices.Reverse(steps)
	return "#" + strings.Join(steps, "")
}

// fault is an error about a keyword of n, or what a JSON pointer leads to from
// there; about n itself for "".
func (n *node) fault(keyword, format string, args ...any) *Error {
	e := errorf(format, args...)
	e.Place = n.place()
	if keyword != "" {
		e.Place += "/" + keyword
	}
	return e
}

// A document is a schema with all that its references may lead to. A node is
// made where a keyword of JSON Schema or a reference finds it, so nothing that
// is compiled has not been looked at.
type document struct {
	root      *node
	nodes     map[*jsonObject]*node
	resources map[string]*node // by URI
	anchors   map[string]*node // by URI and fragment
	dynamic   map[string]int   // how many $dynamicAnchors have a name
}

func newDocument(v any) (*document, error) {
	d := &document{
		nodes:     map[*jsonObject]*node{},
		resources: map[string]*node{},
		anchors:   map[string]*node{},
		dynamic:   map[string]int{},
	}
	var err error
	d.root, err = d.node(nil, "", v)
	if err != nil {
		return nil, err
	}
	d.resources[""] = d.root
	return d, d.index(d.root)
}

// node returns the schema that v is.
func (d *document) node(parent *node, step string, v any) (*node, error) {
	n := &node{parent: parent, step: step, base: &url.URL{}}
	if parent != nil {
		n.base = parent.base
	}
	switch v := v.(type) {
	case bool:
		n.never = !v
		return n, nil
	case *jsonObject:
		if known, ok := d.nodes[v]; ok {
			return known, nil
		}
		n.members, n.id = v, len(d.nodes)+1
		d.nodes[v] = n
		return n, d.identify(n)
	}
	return nil, n.fault("", "a schema is an object or a boolean, not %.40s", appendJSON(nil, v))
}

// identify enters the names that n gives itself.
func (d *document) identify(n *node) error {
	if id, ok := n.members.values["$id"].(string); ok {
		u, err := url.Parse(id)
		if err != nil {
			return n.fault("$id", "%.100q is not a URI", id)
		}
		u = n.base.ResolveReference(u)
		fragment := u.Fragment
		u.Fragment, u.RawFragment = "", ""
		if fragment == "" {
			n.base = u
			d.resources[u.String()] = n
		} else { // an anchor, in drafts 6 and 7
			d.anchors[u.String()+"#"+fragment] = n
		}
	}
	for _, keyword := range []string{"$anchor", "$dynamicAnchor"} {
		if name, ok := n.members.values[keyword].(string); ok {
			d.anchors[n.base.String()+"#"+name] = n
			if keyword == "$dynamicAnchor" {
				d.dynamic[name]++
			}
		}
	}
	return nil
}

// What the value of a keyword holds, if it is schemas.
var (
	oneSchema = []string{
		"additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
		"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
	}
	listOfSchemas = []string{"allOf", "anyOf", "items", "oneOf", "prefixItems"}
	mapOfSchemas  = []string{"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)

// index makes the nodes below n, for the names that they give themselves. What
// is not a schema is a mistake of those that are reached by way of n.
func (d *document) index(n *node) error {
	if n.members == nil {
		return nil
	}
	visit := func(step string, v any) error {
		o, ok := v.(*jsonObject)
		if !ok || d.nodes[o] != nil {
			return nil
		}
		child, err := d.node(n, step, v)
		if err != nil {
			return err
		}
		return d.index(child)
	}
	for _, key := range n.members.keys {
		var err error
		switch v := n.members.values[key].(type) {
		case *jsonObject:
			if slices.Contains(oneSchema, key) {
				err = visit("/"+key, v)
			}
			if slices.Contains(mapOfSchemas, key) {
				for _, name := range v.keys {
					if err == nil {
						err = visit("/"+key+"/"+pointerEscape.Replace(name), v.values[name])
					}
				}
			}
		case []any:
			if slices.Contains(listOfSchemas, key) {
				for i, e := range v {
					if err == nil {
						err = visit(fmt.Sprintf("/%s/%d", key, i), e)
					}
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// target returns the schema that a reference of n means.
func (d *document) target(n *node, keyword string) (*node, error) {
	text, ok := n.members.values[keyword].(string)
	if !ok {
		return nil, n.fault(keyword, "not a string")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, n.fault(keyword, "%.100q is not a URI", text)
	}
	u = n.base.ResolveReference(u)
	fragment := u.Fragment
	u.Fragment, u.RawFragment = "", ""
	root := d.resources[u.String()]
	if root == nil {
		return nil, n.fault(keyword, "%.100q is not in the schema, and other documents are not fetched", text)
	}
	if keyword == "$dynamicRef" && (d.dynamic[fragment] > 1 || d.dynamic[fragment] == 1 && d.anchors[u.String()+"#"+fragment] == nil) {
		return nil, n.fault(keyword, "%.100q depends on where it is reached from, which is not supported", text)
	}
	switch {
	case fragment == "":
		return root, nil
	case fragment[0] != '/':
		if target := d.anchors[u.String()+"#"+fragment]; target != nil {
			return target, nil
		}
		return nil, n.fault(keyword, "%.100q is not found in the schema", text)
	}
	var v any = root.members
	for part := range strings.SplitSeq(fragment[1:], "/") {
		part = pointerUnescape.Replace(part)
		switch in := v.(type) {
		case *jsonObject:
			v, ok = in.values[part]
		case []any:
			i, err := strconv.Atoi(part)
			if ok = err == nil && i >= 0 && i < len(in); ok {
				v = in[i]
			}
		default:
			ok = false
		}
		if !ok {
			return nil, n.fault(keyword, "%.100q is not found in the schema", text)
		}
	}
	target, err := d.node(root, fragment, v)
	if err != nil {
		return nil, err
	}
	return target, d.index(target)
}
