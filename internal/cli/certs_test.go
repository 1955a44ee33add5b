package cli

import "testing"

func TestDialled(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"build.test", "10.0.0.1"}, "build.test"},
		{[]string{"10.0.0.1", "build.test"}, "10.0.0.1"},
		{[]string{"*.build.test", "::1"}, "[::1]"},
		{[]string{"*.build.test"}, "NAME.build.test"},
		{nil, "HOST"},
	} {
		if got := dialled(c.names); got != c.want {
			t.Errorf("%q: %s, want %s", c.names, got, c.want)
		}
	}
}

// What is printed is read back by the option's own grammar.
func TestCSVFields(t *testing.T) {
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{[]string{"a=/x y", "b=z"}, "a=/x y,b=z"},
		{[]string{"a=/x,y", "b=z"}, `"a=/x,y",b=z`},
		{[]string{`a=/x"y`}, `"a=/x""y"`},
	} {
		if got := csvFields(c.fields...); got != c.want {
			t.Errorf("%q: %s, want %s", c.fields, got, c.want)
		}
	}
}
