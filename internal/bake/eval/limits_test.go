package eval

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func evalHCL(t testing.TB, text string) (*Definition, error) {
	t.Helper()
	return Evaluate(context.Background(), Input{Files: []File{{Name: "x.hcl", Data: []byte(text), Format: FormatHCL}}})
}

// evalUpTo evaluates up to a limit. Where it is that of the steps, it is a
// thirtieth of them, so that the tests are quick.
func evalUpTo(what, text string, format Format) error {
	in := Input{Files: []File{{Name: "x", Data: []byte(text), Format: format}}}
	if what == ofSteps {
		in.Limits.Steps = DefaultLimits().Steps / 30
	}
	_, err := Evaluate(context.Background(), in)
	return err
}

func arg(expr string) string { return "target \"default\" {\n args = { a = " + expr + " }\n}\n" }

func rep(s string, n int) string { return strings.Repeat(s, n) }

// doubled is variables of which each has the one before it twice.
func doubled(first, twice string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "variable \"v0\" { default = %s }\n", first)
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "variable \"v%d\" { default = %s }\n", i, strings.ReplaceAll(twice, "V", fmt.Sprintf("v%d", i-1)))
	}
	return b.String()
}

// functions is functions of which each calls the one before it twice.
func functions(n int) string {
	var b strings.Builder
	b.WriteString("function \"f0\" {\n params = [x]\n result = x\n}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "function \"f%d\" {\n params = [x]\n result = f%d(x) && f%d(!x)\n}\n", i, i-1, i-1)
	}
	return b.String() + arg(fmt.Sprintf("f%d(true)", n-1))
}

// waiting is variables of which each needs the next one.
func waiting(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "variable \"v%06d\" { default = v%06d }\n", i, i+1)
	}
	return b.String() + fmt.Sprintf("variable \"v%06d\" { default = 1 }\n", n)
}

// A definition that would cost too much is refused with the limit that it
// reaches, and has cost little until then.
func TestLimits(t *testing.T) {
	const huge = `join("", [for i in range(1000) : format("%8000s", "x")])`
	for name, tc := range map[string]struct{ text, what string }{
		"parentheses":       {arg(rep("(", 5000) + "1" + rep(")", 5000)), ofNesting},
		"one long line":     {arg(rep("(", 300_000)), ofNesting},
		"lists":             {arg(rep("[", 5000) + rep("]", 5000)), ofNesting},
		"objects":           {arg(rep("{a=", 5000) + "1" + rep("}", 5000)), ofNesting},
		"object lines":      {arg(rep("{\na=", 5000) + "1" + rep("\n}", 5000)), ofNesting},
		"blocks":            {rep("a {\n", 5000) + rep("}\n", 5000), ofNesting},
		"not":               {arg(rep("!", 5000) + "true"), ofNesting},
		"not in lines":      {arg("(" + rep("!\n", 5000) + "true)"), ofNesting},
		"not in for":        {arg("{for k, v in {} :\n" + rep("!\n", 5000) + "k => v}"), ofNesting},
		"minus":             {arg(rep("- ", 5000) + "1"), ofNesting},
		"sum":               {arg("1" + rep("+1", 5000)), ofNesting},
		"conditions":        {arg(rep("true ? 1 : ", 5000) + "1"), ofNesting},
		"indexes":           {"a = [0]\n" + arg("a"+rep("[a[0]]", 5000)), ofNesting},
		"splats":            {"a = [0]\n" + arg("a"+rep("[*]", 5000)), ofNesting},
		"calls":             {arg(rep("upper(", 5000) + `"x"` + rep(")", 5000)), ofNesting},
		"templates":         {arg(rep(`"${`, 5000) + "1" + rep(`}"`, 5000)), ofNesting},
		"directives":        {arg("<<E\n" + rep("%{if true}\n", 5000) + rep("%{endif}\n", 5000) + "E\n"), ofNesting},
		"for directives":    {arg(`"` + rep("%{for x in []}", 5000) + rep("%{endfor}", 5000) + `"`), ofNesting},
		"unbalanced":        {arg(rep("(", 5000) + "]]]]"), ofNesting},
		"deep value":        {doubled("1", "[V]", 300), ofValueDepth},
		"product":           {`target "t" {` + "\n name = \"t\"\n matrix = { a = range(200), b = range(200) }\n}\n", ofTargets},
		"several products":  {rep("target \"t\" {\n name = \"t${a}-${b}\"\n matrix = { a = range(100), b = range(90) }\n}\n", 2), ofTargets},
		"many axes":         {`target "t" {` + "\n name = \"t\"\n matrix = {for i in range(60) : \"a${i}\" => [1, 2]}\n}\n", ofTargets},
		"calls of calls":    {functions(60), ofSteps},
		"loops in loops":    {arg("length([for a in range(1000) : length([for b in range(1000) : length([for c in range(1000) : a*b*c])])])"), ofSteps},
		"loops of literals": {arg("length([for a in range(1000) : length([for b in range(1000) : length([for c in range(1000) : 1+1+1+1])])])"), ofSteps},
		"texts":             {doubled(`"aaaaaaaaaaaaaaaa"`, `"${V}${V}"`, 60), ofText},
		"wide text":         {doubled(`"aaaaaaaaaaaaaaaa"`, `"`+rep("${V}", 20)+`"`, 4) + arg(`length([for i in range(1000) : v3])`), ofAllText},
		"many texts":        {"a = " + huge + "\n" + arg(`length([for i in range(1000) : upper("${a}${i}")])`), ofAllText},
		"shared lists":      {doubled("1", "[V, V]", 60), ofAllElements},
		"merge":             {doubled("{a = 1}", "merge(V, {for k, v in V : \"V${k}\" => v})", 60), ofElements},
		"concat":            {doubled("[1]", "concat(V, V)", 60), ofElements},
		"flatten":           {"x = range(1000)\n" + arg("length(flatten([for a in range(1000) : x]))"), ofAllElements},
		"product of sets":   {arg("length(setproduct(range(1000), range(1000), range(1000)))"), ofElements},
		"split":             {"a = " + huge + "\n" + arg(`length(split("", a))`), ofElements},
		"distinct":          {arg("length(distinct(concat([for i in range(9) : [for j in range(1000) : i * 1000 + j]]...)))"), ofSteps},
		"width":             {arg(`format("%999999999d", 1)`), ofText},
		"long width":        {arg(`format("%99999999999999999999999999d", 1)`), ofText},
		"precision":         {arg(`format("%.999999999f", 1)`), ofText},
		"verbs":             {"a = " + huge + "\n" + arg(`format("%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s", a)`), ofText},
		"format list":       {"a = " + huge + "\n" + arg(`length(formatlist("%s%s", a, range(1000)))`), ofText},
		"indent":            {arg(`indent(999999999, "a\nb")`), ofText},
		"join":              {"a = " + huge + "\n" + arg("length(join(a, [for i in range(1000) : \"x\"]))"), ofText},
		"replace":           {"a = " + huge + "\n" + arg(`replace(a, " ", "0123456789")`), ofText},
		"replace nothing":   {"a = " + huge + "\n" + arg(`replace(a, "", "0123456789")`), ofText},
		"regex_replace":     {"a = " + huge + "\n" + arg(`regex_replace(a, " ", "0123456789")`), ofText},
		"regex groups":      {arg(`regex_replace(format("%90000s", "x"), "(.*)", "` + rep("$1", 5000) + `")`), ofText},
		"regexall":          {"a = " + huge + "\n" + arg(`length(regexall(" ", a))`), "bytes in which all matches are looked for"},
		"slow regex":        {"a = " + huge + "\n" + arg(`length([for i in range(1000) : regex("`+rep("(a?b?c?)*", 200)+`z", a)])`), ofSteps},
		"long regex":        {arg(`regex(format("%100000s", "x"), "x")`), "bytes in a regular expression"},
		"jsondecode":        {arg(`jsondecode(join("", [for i in range(1000) : "["]))`), ofValueDepth},
		"csvdecode":         {"a = " + huge + "\n" + arg(`csvdecode(a)`), "bytes to be decoded"},
		"bcrypt":            {arg(`bcrypt("x", 31)`), "as the cost of bcrypt"},
		"bcrypt often":      {arg(`[for i in range(1000) : bcrypt("x", 14)]`), ofSteps},
		"large literal":     {arg(`"${1e600000000}"`), ofDigits},
		"large in template": {arg(`"a${1e600000000}"`), ofDigits},
		"small literal":     {arg(`"a${1e-600000000}"`), ofDigits},
		"large by text":     {arg(`"1e600000000" * 1`), ofDigits},
		"large number":      {doubled("1e2000", "V * V", 60), ofDigits},
		"large in list":     {arg(`jsonencode(["1e600000000" * 1])`), ofDigits},
		"large decoded":     {arg(`jsonencode(jsondecode("[1e600000000]"))`), ofDigits},
		"waiting":           {waiting(30_000), ofDepth},
		"hidden by try":     {arg(`try(format("%999999999d", 1), "x")`), ofText},
		"hidden by can":     {doubled(`"aaaaaaaaaaaaaaaa"`, `"${V}${V}"`, 60) + arg(`can(v59)`), ofText},
		"long list":         {arg("length([" + rep("1,", 20_000) + "])"), ofElements},
		"number of globals": {"a = [" + rep("1,", 20_000) + "]\n", ofElements},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, tc.what, func() error { return evalUpTo(tc.what, tc.text, FormatHCL) })
		})
	}
}

// refuses tells whether f ends with the limit, having made less garbage than
// would hurt.
func refuses(t *testing.T, what string, f func() error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := f()
	runtime.ReadMemStats(&after)
	var limit *LimitError
	if !errors.As(err, &limit) || limit.What != what {
		text := fmt.Sprint(err)
		t.Fatalf("wanted the limit of %s, got %.300s", what, text)
	}
	const most = 3 << 30 // allocated in all, not at once
	if used := after.TotalAlloc - before.TotalAlloc; used > most {
		t.Errorf("it took %d MiB", used>>20)
	}
}

func TestLimitsOfJSON(t *testing.T) {
	wrap := func(value string) string { return `{"target": {"default": {"args": {"a": ` + value + `}}}}` }
	for name, tc := range map[string]struct{ text, what string }{
		"lists":            {wrap(rep("[", 5000) + rep("]", 5000)), ofNesting},
		"objects":          {wrap(rep(`{"a":`, 5000) + "1" + rep("}", 5000)), ofNesting},
		"open":             {rep(`{"a":`, 100_000), ofNesting},
		"after a bad text": {"{\"\n" + rep("[", 300_000), ofNesting},
		"templates":        {wrap(`"${` + rep("(", 5000) + `"`), ofNesting},
		"numbers":          {wrap("1e600000000"), ofDigits},
		"elements":         {wrap("[" + rep("1,", 20_000) + "1]"), ofElements},
		"width":            {wrap(`"${format(\"%999999999d\", 1)}"`), ofText},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, tc.what, func() error { return evalUpTo(tc.what, tc.text, FormatJSON) })
		})
	}
}

func TestLimitsOfInput(t *testing.T) {
	big := File{Name: "x.hcl", Data: make([]byte, 9<<20)}
	refuses(t, ofFileBytes, func() error {
		_, err := Evaluate(context.Background(), Input{Files: []File{big, big}})
		return err
	})
	text := "variable \"X\" {\n type = number\n}\n" + arg("X")
	for value, ok := range map[string]bool{"1e400": false, "5": true} {
		_, err := Evaluate(context.Background(), Input{Files: []File{{Name: "x.hcl", Data: []byte(text)}}, Vars: map[string]string{"X": value}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", value, err)
		}
	}
	refuses(t, ofDigits, func() error {
		_, err := Evaluate(context.Background(), Input{Files: []File{{Name: "x.hcl", Data: []byte(text)}}, Vars: map[string]string{"X_JSON": "1e600000000"}})
		return err
	})
	small := Limits{Targets: 2}
	three := "target \"a\" {\n}\ntarget \"b\" {\n}\ntarget \"c\" {\n}\n"
	refuses(t, ofTargets, func() error {
		_, err := Evaluate(context.Background(), Input{Files: []File{{Name: "x.hcl", Data: []byte(three)}}, Limits: small})
		return err
	})
}

// What is near the limits is evaluated.
func TestBelowTheLimits(t *testing.T) {
	var wide strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&wide, "variable \"v%d\" { default = \"${upper(\"x\")}-%d\" }\n", i, i)
	}
	for name, text := range map[string]string{
		"parentheses":     arg(rep("(", 400) + "1" + rep(")", 400)),
		"parts":           arg(`"` + rep("${upper(\"x\")}", 3000) + `"`),
		"one line":        "target \"default\" {\n tags = [" + rep(`"${upper("a")}:${1 + 1}", `, 3000) + "]\n}\n",
		"blocks":          rep("target \"a\" {\n args = { a = 1 + 1, b = 2 * 3 }\n}\n", 2000),
		"many variables":  wide.String(),
		"waiting":         waiting(2000),
		"product":         "target \"t\" {\n name = \"t${a}-${b}\"\n matrix = { a = range(100), b = range(99) }\n}\n",
		"calls of calls":  functions(14),
		"crooked cut":     "target \"a\" {\n dockerfile-inline = <<E\n" + rep("x\n}\n", 4000) + "E\n}\n",
		"cut in comments": rep("target \"a\" {\n}\n/*\n}\n*/\n# }\n", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := evalHCL(t, text); err != nil {
				t.Errorf("%.300s", err.Error())
			}
		})
	}
}

// A definition whose time is over ends with what ended it.
func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Evaluate(ctx, Input{Files: []File{{Name: "x.hcl", Data: []byte(functions(60))}}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// One that ends on the way does so, too: here, when a value is asked for.
func TestContextEndsOnTheWay(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in := Input{
		Files: []File{{Name: "x.hcl", Data: []byte("variable \"A\" { default = true }\n" + functions(60))}},
		Env:   func(string) (string, bool) { cancel(); return "", false },
	}
	if _, err := Evaluate(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
