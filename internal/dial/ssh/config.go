package ssh

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/dial"
)

// The bounds of what is read as configuration.
const (
	maxConfig = 1 << 20 // bytes of a file
	maxFiles  = 128     // files, included ones too
	maxDepth  = 16      // of Include, as ssh has it
)

// value is what a directive says, and where.
type value struct {
	args  []string
	where string // FILE:LINE
}

// reader collects what ssh_config says about one host: of each directive the
// first that applies, as ssh does.
type reader struct {
	d      *dialer
	host   string // as it was named
	user   string // as it was named with the host, or ""
	values map[string]value
	lists  map[string][]value // IdentityFile and CertificateFile add up
	files  int
	final  bool // this is the second reading, for Match final
	again  bool // there is something for it
}

// systemConfig is where the system has its ssh_config.
func systemConfig(env dial.Env) string {
	if runtime.GOOS == "windows" {
		return filepath.Join(env.Getenv("ProgramData"), "ssh", "ssh_config")
	}
	return "/etc/ssh/ssh_config"
}

// read reads the user's file and the system's.
func (r *reader) read() error {
	for {
		if r.d.env.Home != "" {
			own := filepath.Join(r.d.env.Home, ".ssh", "config")
			if err := r.file(own, filepath.Dir(own), 0); err != nil {
				return err
			}
		}
		if err := r.file(r.d.system, filepath.Dir(r.d.system), 0); err != nil {
			return err
		}
		if r.final || !r.again {
			return nil
		}
		r.final, r.files = true, 0
	}
}

// file reads one file, if it exists. dir is what an Include is relative to.
func (r *reader) file(path, dir string, depth int) error {
	if r.files++; r.files > maxFiles {
		return badConfig(path, "more than %d files are included", maxFiles)
	}
	text, err := readFile(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = safeConfig(path, dir == filepath.Dir(r.d.system))
	}
	if err != nil {
		return badConfig(path, "%w", err)
	}
	active := true
	for n, line := range strings.Split(string(text), "\n") {
		where := fmt.Sprintf("%s:%d", path, n+1)
		if err := r.line(line, where, dir, depth, &active); err != nil {
			return err
		}
	}
	return nil
}

// line reads one line. active is whether the block that it stands in applies.
func (r *reader) line(line, where, dir string, depth int, active *bool) error {
	keyword, args, err := splitLine(line)
	if err != nil {
		return badConfig(where, "%w", err)
	}
	switch keyword {
	case "":
	case "host":
		*active = matchWords(args, r.host)
	case "match":
		*active, err = r.match(args, where)
	case "include":
		if *active {
			err = r.include(args, where, dir, depth)
		}
	default:
		if *active {
			r.set(keyword, value{args, where})
		}
	}
	return err
}

// set keeps a directive, unless one before it has said so already.
func (r *reader) set(keyword string, v value) {
	switch keyword {
	case "identityfile", "certificatefile":
		same := func(o value) bool { return slices.Equal(o.args, v.args) }
		if !slices.ContainsFunc(r.lists[keyword], same) {
			r.lists[keyword] = append(r.lists[keyword], v)
		}
		return
	case "proxyjump", "proxycommand": // the first of the two
		_, jump := r.values["proxyjump"]
		_, command := r.values["proxycommand"]
		if jump || command {
			return
		}
	}
	if _, has := r.values[keyword]; !has {
		r.values[keyword] = v
	}
}

func (r *reader) include(args []string, where, dir string, depth int) error {
	if depth++; depth > maxDepth {
		return badConfig(where, "files include each other more than %d deep", maxDepth)
	}
	for _, pattern := range args {
		switch {
		case strings.HasPrefix(pattern, "~/"):
			pattern = filepath.Join(r.d.env.Home, pattern[2:])
		case !filepath.IsAbs(pattern):
			pattern = filepath.Join(dir, pattern)
		}
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return badConfig(where, "Include: %w", err)
		}
		for _, p := range paths {
			if err := r.file(p, dir, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// match evaluates the criteria of a Match line, in order, as ssh does.
func (r *reader) match(args []string, where string) (bool, error) {
	if len(args) == 0 {
		return false, badConfig(where, "Match has no criteria")
	}
	for len(args) > 0 {
		word, inverted := strings.CutPrefix(strings.ToLower(args[0]), "!")
		criterion, arg, glued := strings.Cut(word, "=")
		if args = args[1:]; !glued && !slices.Contains([]string{"all", "canonical", "final"}, criterion) {
			if len(args) == 0 {
				return false, badConfig(where, "Match %s has no value", clip(criterion))
			}
			arg, args = args[0], args[1:]
		}
		var ok bool
		switch criterion {
		case "all":
			ok = true
		case "final":
			r.again, ok = true, r.final
		case "canonical":
			ok = r.final
		case "host":
			ok = matchList(arg, r.hostName())
		case "originalhost":
			ok = matchList(arg, r.host)
		case "user":
			ok = matchList(arg, r.userName())
		case "localuser":
			ok = matchList(arg, r.d.local())
		case "exec", "tagged", "localnetwork", "version", "sessiontype", "command":
			r.d.warn(fmt.Sprintf("%s: berth does not evaluate Match %s; the lines below it are not used", where, criterion))
			return false, nil
		default:
			return false, badConfig(where, "Match %s is unknown", clip(criterion))
		}
		if ok == inverted {
			return false, nil
		}
	}
	return true, nil
}

// hostName is the HostName so far.
func (r *reader) hostName() string {
	if v, ok := r.values["hostname"]; ok {
		return strings.ToLower(strings.NewReplacer("%%", "%", "%h", r.host).Replace(v.args[0]))
	}
	return r.host
}

// userName is the User so far.
func (r *reader) userName() string {
	if r.user != "" {
		return r.user
	}
	if v, ok := r.values["user"]; ok {
		return v.args[0]
	}
	return r.d.local()
}

// readFile reads a file that is one, and not larger than most bytes.
func readFile(path string, most int64) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	st, err := os.Stat(path) // opening a pipe would wait for its writer
	if err != nil {
		return nil, pathCause(err)
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, pathCause(err)
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, pathCause(err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("is larger than %d KiB", most>>10)
	}
	return text, nil
}

// pathCause drops the path, which is said anyway.
func pathCause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// safeConfig refuses what ssh refuses: a configuration that others can change
// says where to connect to.
func safeConfig(path string, system bool) error {
	st, err := os.Stat(path)
	if err != nil || system || runtime.GOOS == "windows" {
		return err
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write this file (mode %04o): chmod go-w %s", st.Mode().Perm(), path)
	}
	return nil
}

// splitLine gives the directive, in lower case, and its values, of which there
// is at least one. Nothing for an empty line and a comment.
func splitLine(line string) (string, []string, error) {
	line = strings.Trim(line, " \t\r\f")
	if line == "" || line[0] == '#' {
		return "", nil, nil
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return c != '\t' && unicode.IsControl(c) }) {
		return "", nil, errors.New("this is not text")
	}
	end := strings.IndexFunc(line, func(c rune) bool { return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') })
	if end < 0 {
		return "", nil, fmt.Errorf("%s has no value", clip(line))
	}
	keyword, rest := line[:end], strings.TrimLeft(line[end:], " \t")
	if end == 0 || rest == line[end:] && rest[0] != '=' {
		return "", nil, fmt.Errorf("%q is not a directive of ssh_config", clip(line))
	}
	rest = strings.TrimPrefix(rest, "=")
	args, err := splitWords(rest)
	if err == nil && (len(args) == 0 || args[0] == "") {
		err = errors.New("has no value")
	}
	if err != nil {
		return "", nil, fmt.Errorf("%s %w", clip(keyword), err)
	}
	return strings.ToLower(keyword), args, nil
}

// splitWords cuts at spaces outside of quotes, up to a comment.
func splitWords(s string) ([]string, error) {
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == '#' {
			return words, nil
		}
		word, rest, err := cutWord(s)
		if err != nil {
			return nil, err
		}
		words, s = append(words, word), rest
	}
}

func cutWord(s string) (word, rest string, err error) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && (strings.IndexByte(`"'\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
			i++
			b.WriteByte(s[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", "", errors.New("has a quote that does not end")
	}
	return b.String(), "", nil
}
