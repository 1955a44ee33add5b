// Package eval evaluates bake definitions: files in HCL or JSON become targets,
// groups and variables.
//
// It is pure: it opens no file, reads no environment and no clock. Its caller
// has read the files, and says what the definition may know of the world (Input).
// Inheritance, groups, overrides and printing are the business of internal/bake;
// Compose files are not read here.
//
// Rules: the files are not to be trusted. Whatever they say, an evaluation ends,
// within Limits, with a definition or with an *Error that points into a file.
// What a definition means is what buildx v0.38 takes it to mean, as its
// documents say and its binary shows. Every expression is evaluated once, when
// it is first needed, so that variables, functions and targets may refer to
// each other in any order; a cycle is refused with the way round it.
package eval

import (
	"context"
	"time"
)

// Format is the syntax of a file.
type Format int

// The formats.
const (
	FormatAuto Format = iota // by the name (.hcl, .json); else JSON where the first character is a brace or a bracket
	FormatHCL
	FormatJSON
)

// File is one file of a definition.
type File struct {
	Name   string // in messages, and in Target.ContextFile
	Data   []byte
	Format Format
}

// Input is a definition, and all that it may know of the world.
type Input struct {
	Files []File // a later file overrides an earlier one, attribute by attribute

	// Env looks up a variable of the environment; nil knows none. It is asked
	// for nothing but the variables that the definition declares.
	Env func(name string) (value string, found bool)
	// Vars are the values of --var. They go before the environment.
	Vars map[string]string
	// Builtins are variables that exist without being declared, and that
	// neither a file nor Env nor Vars changes: BAKE_CMD_CONTEXT, …
	Builtins map[string]string

	Now  time.Time // what timestamp() gives
	Home string    // what homedir() gives

	Limits Limits // zero fields have the values of DefaultLimits
}

// Definition is what files say, before inheritance.
type Definition struct {
	Targets   []Target   // each name once, in the order in which the names first appear
	Groups    []Group    // the same; a matrix makes a group of its targets
	Variables []Variable // in the order of their names
	Warnings  []Diagnostic
}

// Group is several targets under one name.
type Group struct {
	Name        string
	Description string
	Targets     []string // names of targets and groups; nil where the definition says null
}

// Variable is a variable that a definition declares, with the value that it has.
type Variable struct {
	Name        string
	Description string
	Type        string  // of a declared type, its name: "list of string"; else ""
	Value       *string // lists and the like as JSON; nil is null
}

// Evaluate evaluates a definition. The error is an *Error, except where ctx has
// ended.
func Evaluate(ctx context.Context, in Input) (*Definition, error) {
	e := newEvaluator(ctx, in)
	def, err := e.run()
	if err != nil {
		return nil, err
	}
	return def, nil
}
