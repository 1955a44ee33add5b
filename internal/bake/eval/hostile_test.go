package eval

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// large makes the expression of a text of n thousand letters.
func large(n int, letter string) string {
	return fmt.Sprintf(`join("", [for i in range(1000) : replace(format("%%%ds", ""), " ", %q)])`, n, letter)
}

// often makes an expression that evaluates x a million times.
func often(x string) string {
	return arg("length([for i in range(1000) : length([for j in range(1000) : " + x + "])])")
}

// list writes n elements, of which each is written by f.
func list(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i) + ", ")
	}
	return "[" + b.String() + "]"
}

// What HCL, cty and the functions do without a limit of their own.
func TestLimitsOfOperations(t *testing.T) {
	digits := "d = " + large(8, "9") + "\n"
	letters := "x = " + large(20, "é") + "\n"
	nested := "x = [for i in range(300) : range(300)]\n"
	mixed := list(9000, func(i int) string { return []string{"1", `"a"`}[i%2] })
	objects := list(4000, func(i int) string { return fmt.Sprintf("{a%d = 1}", i) })
	deep := func(leaf string) string { return rep("[", 100) + leaf + rep("]", 100) }
	for name, tc := range map[string]struct{ text, what string }{
		"equality":          {nested + often("x == x"), ofSteps},
		"choice":            {nested + often("true ? x : x"), ofSteps},
		"deep choice":       {"x = " + deep("1") + "\ny = " + deep("{}") + "\n" + arg("length(true ? x : y)"), ofSteps},
		"mixed choice":      {arg("length(true ? " + mixed + " : [1])"), ofSteps},
		"mixed elements":    {arg("length(distinct(" + mixed + "))"), ofSteps},
		"mixed set":         {arg("length(setunion(" + mixed + ", [1]))"), ofSteps},
		"mixed conversion":  {arg("length(convert(" + mixed + ", list(any)))"), ofSteps},
		"mixed variable":    {"variable \"x\" {\n type = list(any)\n default = " + mixed + "\n}\n", ofSteps},
		"mixed arguments":   {arg("length(coalesce(" + strings.Trim(objects, "[] ") + " {}))"), ofSteps},
		"objects":           {arg("length(distinct(" + objects + "))"), ofSteps},
		"sets of lists":     {often("setunion([for a in range(100) : [for b in range(100) : a + b]], [[1]])"), ofSteps},
		"digits, operator":  {digits + arg("d * 1"), ofNumeral},
		"digits, compared":  {digits + arg("d < 1"), ofNumeral},
		"digits, negated":   {digits + arg("-d"), ofNumeral},
		"digits, argument":  {digits + arg("max(d, 1)"), ofNumeral},
		"digits, index":     {digits + arg("[1][d]"), ofNumeral},
		"digits, converted": {digits + arg("convert([d], list(number))[0]"), ofNumeral},
		"digits, decoded":   {digits + arg("jsondecode(substr(d, 0, 900000))"), ofNumeral},
		"digits, field":     {digits + "target \"a\" {\n resources = { cpu-shares = d }\n}\n", ofNumeral},
		"digits, variable":  {"variable \"x\" {\n type = list(number)\n default = [" + large(8, "9") + "]\n}\n", ofNumeral},
		"digits, literal":   {"x = " + rep("9", 20_000) + "\n", ofNumeral},
		"large variable":    {"variable \"x\" {\n type = number\n default = \"1e600000000\"\n}\n", ofDigits},
		"large product":     {arg("1e2000" + rep("*1e2000", 500)), ofDigits},
		"large numbers":     {often(`"${1e2400 / 3}"`), ofAllText},
		"trim":              {letters + arg("trim(x, x)"), ofSteps},
		"strlen":            {letters + often("strlen(x)"), ofSteps},
		"regex repeats":     {"x = " + large(1, "a") + "\n" + often(`regexall("`+rep("(a?){100}", 20)+`b", x)`), ofSteps},
		"regex states":      {arg(`length(regexall("` + rep("(a?){1000}", 50) + `b", "a"))`), "states in a regular expression"},
		"sort":              {"x = [for i in range(1000) : \"${1000 - i}\"]\n" + often("sort(x)"), ofSteps},
		"csvdecode rows":    {"x = join(\"\\n\", [for i in range(1000) : join(\",\", [for j in range(90) : \"c${j}\"])])\n" + often("csvdecode(x)"), ofSteps},
		"jsondecode lists":  {"x = jsonencode([for i in range(250) : range(300)])\n" + often("jsondecode(x)"), ofSteps},
		"semver":            {often(`can(semvercmp("1.0.0", "` + rep(">1 ||", 1000) + `"))`), ofSteps},
		"failures":          {often("try(z.z, nope(), [1][3], 1)"), ofSteps},
		"names far out":     {"g = 1\n" + arg(rep("length([for a in [1] : ", 150)+"length([for a in range(1000) : length([for a in range(1000) : g])])"+rep("])", 150)), ofSteps},
		"splats":            {"x = [for i in range(1000) : {a = range(90)}]\n" + often("x[*].a[*]"), ofSteps},
		"fields":            {"x = [for i in range(1000) : \"t${i}\"]\ntarget \"t\" {\n name = \"t${a}-${b}\"\n matrix = { a = range(100), b = range(90) }\n tags = x\n}\n", ofSteps},
		"whole targets":     {"target \"a\" {\n tags = [for i in range(1000) : \"t${i}\"]\n}\ntarget \"b\" {\n args = { a = length([for i in range(1000) : target.a]) }\n}\n", ofSteps},
		"types of nothing":  {"x = slice(distinct([[for i in range(1000) : [i]]]), 0, 0)\n" + often("[x, x, x]"), ofSteps},
		"loops of 2":        {"g = 1\n" + arg(rep("length([for a in range(2) : ", 24)+"g"+rep("])", 24)), ofSteps},
		"lines of a text":   {"x = <<E\n" + rep(rep("x", 90)+"\n", 6000) + "E\n", ofJoined},
		"words":             {rep("= ", 700_000), ofWords},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, tc.what, func() error { return evalUpTo(tc.what, tc.text, FormatHCL) })
		})
	}
}

// A definition in JSON of many words is refused, and what --print writes of many
// targets is not.
func TestWordsOfJSON(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":  `{"a": [` + rep("[],", 250_000) + `1]}`,
		"templates": `{"a": "${[` + rep("1,", 350_000) + `1]}"}`,
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, ofWords, func() error { return evalUpTo(ofWords, text, FormatJSON) })
		})
	}
	good := `{"target": {"a": {"args": {` + rep(`"a-b-c-d": "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",`+"\n", 5000) + `"z": "z"}}}}`
	c, words := counter{json: true}, 0
	for i := range len(good) {
		words += c.next(good[i])
	}
	if want := 4 * 5000; words < want || words > want+50 {
		t.Errorf("%d words were counted, and there are about %d", words, want)
	}
}

// Values from outside cost no more than those of a file.
func TestLimitsOfGiven(t *testing.T) {
	for name, tc := range map[string]struct{ typ, key, value, what string }{
		"mixed":  {"list(any)", "X_JSON", list(9000, func(i int) string { return []string{"1", `"a"`}[i%2] }) + "]", ofSteps},
		"digits": {"number", "X_JSON", rep("9", 20_000), ofNumeral},
		"deep":   {"any", "X_JSON", rep("[", 5000) + rep("]", 5000), ofValueDepth},
		"long":   {"list(string)", "X_JSON", "[" + rep(`"a",`, 20_000) + `"a"]`, ofElements},
	} {
		t.Run(name, func(t *testing.T) {
			value := strings.Replace(tc.value, ", ]]", "]", 1)
			text := "variable \"X\" {\n type = " + tc.typ + "\n}\n"
			refuses(t, tc.what, func() error {
				in := Input{Files: []File{{Name: "x.hcl", Data: []byte(text)}}, Vars: map[string]string{tc.key: value}}
				_, err := Evaluate(context.Background(), in)
				return err
			})
		})
	}
}

// Nothing of this is much, by the limits that hold.
func TestLargeButGood(t *testing.T) {
	var params strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&params, "a%d, ", i)
	}
	for name, text := range map[string]string{
		"2000 targets by 10 tags": "target \"t\" {\n name = \"t${a}-${b}\"\n matrix = { a = range(50), b = range(40) }\n" +
			" tags = [for i in range(10) : \"docker.io/acme/${lower(\"Image\")}:${a}.${b}-${i}\"]\n" +
			" args = merge({ A = a }, { B = b }, { C = format(\"%02d\", b) })\n}\n",
		"a long Dockerfile":   "target \"a\" {\n dockerfile-inline = <<E\n" + rep("RUN echo 0123456789 0123456789 0123456789\n", 3000) + "E\n}\n",
		"2000 parameters":     "function \"f\" {\n params = [" + params.String() + "]\n result = [" + params.String() + "]\n}\n",
		"a list of 500 words": "x = distinct([for i in range(500) : \"w${i}\"])\n" + arg("join(\" \", sort(x))"),
		"objects in a list":   arg("length(distinct([for i in range(150) : {name = \"a${i}\", tags = [\"x\", \"y\"]}]))"),
		"choices":             arg("length([for i in range(1000) : i % 2 == 0 ? {a = 1, b = [1, \"x\"]} : {a = \"y\", b = [\"z\"]}])"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := evalHCL(t, text); err != nil {
				t.Errorf("%.300s", err.Error())
			}
		})
	}
}

// What a limit ends is said with the limit, the file and the line.
func TestLimitNamesItsPlace(t *testing.T) {
	text := "\n" + often("length([for k in range(1000) : i * j * k])")
	in := Input{Files: []File{{Name: "x.hcl", Data: []byte(text)}}, Limits: Limits{Steps: 50_000}}
	_, err := Evaluate(context.Background(), in)
	if got := fmt.Sprint(err); !strings.HasPrefix(got, "x.hcl:3,") || !strings.Contains(got, "more than 50000 steps of evaluation") {
		t.Error(got)
	}
}
