package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxAWSFile bounds a credentials file, in bytes.
const maxAWSFile = 1 << 20

// awsKeys are the credentials that a daemon can be given.
type awsKeys struct{ id, secret, session string }

// fillS3 adds the user's AWS credentials to an S3 cache that has none of its
// own: those of the environment, or of the profile in AWS's files. Region and
// bucket are left to the flag and to the daemon, as in buildx.
//
// What has to be asked for over the network (roles, single sign-on, the metadata
// of a machine) is not followed: the daemon then uses what it has itself.
func (a *app) fillS3(attrs map[string]string) {
	_, ownID := attrs["access_key_id"]
	_, ownSecret := attrs["secret_access_key"]
	if ownID && ownSecret {
		return
	}
	keys, err := a.awsKeys()
	if err != nil {
		a.warn("type=s3: %v; the daemon uses the AWS credentials that it has itself. To send yours: eval $(aws configure export-credentials --format env)", err)
	}
	if keys.id == "" || keys.secret == "" {
		return
	}
	for key, value := range map[string]string{
		"access_key_id": keys.id, "secret_access_key": keys.secret, "session_token": keys.session,
	} {
		if _, own := attrs[key]; !own && value != "" {
			attrs[key] = value
		}
	}
}

// awsKeys finds the credentials in the order of AWS's own programs. No keys are
// no error; keys that are there, and that berth cannot get, are one.
func (a *app) awsKeys() (awsKeys, error) {
	keys := awsKeys{
		id:      cmp.Or(a.env("AWS_ACCESS_KEY_ID"), a.env("AWS_ACCESS_KEY")),
		secret:  cmp.Or(a.env("AWS_SECRET_ACCESS_KEY"), a.env("AWS_SECRET_KEY")),
		session: a.env("AWS_SESSION_TOKEN"),
	}
	if keys.id != "" && keys.secret != "" {
		return keys, nil
	}
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if a.env(name) != "" {
			return awsKeys{}, fmt.Errorf("%s is set, which berth does not follow", name)
		}
	}
	return a.awsProfile(cmp.Or(a.env("AWS_PROFILE"), a.env("AWS_DEFAULT_PROFILE"), "default"))
}

// awsSource is where awsKeys finds the keys: the name of a variable, or the file.
func (a *app) awsSource() (env, file string) {
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"} {
		if a.env(name) != "" && cmp.Or(a.env("AWS_ACCESS_KEY_ID"), a.env("AWS_ACCESS_KEY")) != "" {
			return name, ""
		}
	}
	return "", a.awsCredentialsFile()
}

func (a *app) awsCredentialsFile() string {
	return cmp.Or(a.env("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(a.home(), ".aws", "credentials"))
}

// awsProfile reads a profile of AWS's two files; the credentials file counts
// more than the other.
func (a *app) awsProfile(name string) (awsKeys, error) {
	profile := map[string]string{}
	for _, f := range []struct{ path, section string }{
		{cmp.Or(a.env("AWS_CONFIG_FILE"), filepath.Join(a.home(), ".aws", "config")), configSection(name)},
		{a.awsCredentialsFile(), name},
	} {
		if err := readAWSFile(f.path, f.section, profile); err != nil {
			return awsKeys{}, err
		}
	}
	keys := awsKeys{id: profile["aws_access_key_id"], secret: profile["aws_secret_access_key"], session: profile["aws_session_token"]}
	if profile["role_arn"] == "" && keys.id != "" && keys.secret != "" {
		return keys, nil
	}
	for _, key := range []string{"role_arn", "sso_session", "sso_start_url", "sso_account_id", "credential_process", "credential_source", "web_identity_token_file", "login_session"} {
		if profile[key] != "" {
			return awsKeys{}, fmt.Errorf("the AWS profile %q wants %s, which berth does not follow", name, key)
		}
	}
	return awsKeys{}, nil
}

// configSection is the name of a profile's section in AWS's config file.
func configSection(profile string) string {
	if profile == "default" {
		return profile
	}
	return "profile " + profile
}

func readAWSFile(path, section string, into map[string]string) error {
	fi, err := os.Stat(path) // before opening, which would block on a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return parseAWS(io.LimitReader(f, maxAWSFile), section, into)
}

// parseAWS adds the settings of one section: lines of NAME = VALUE under
// [SECTION], with # and ; before comments. Indented lines belong to a setting
// above, and none that is looked for here has any.
func parseAWS(r io.Reader, section string, into map[string]string) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAWSFile)
	in := false
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.ContainsAny(line[:1], " \t#;") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			name, _, _ := strings.Cut(line[1:], "]")
			in = strings.Join(strings.Fields(name), " ") == section
			continue
		}
		if name, value, ok := strings.Cut(line, "="); in && ok {
			value, _, _ = strings.Cut(value, " #")
			value, _, _ = strings.Cut(value, " ;")
			into[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	return lines.Err()
}
