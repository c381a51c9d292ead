package deploy

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/internal/account"
)

// What the SDK has to sign with is told from what it was told to use and could
// not.
func TestCredentials(t *testing.T) {
	f := newFake(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	profiles := filepath.Join(t.TempDir(), "config")
	t.Setenv("AWS_CONFIG_FILE", profiles)
	if err := os.WriteFile(profiles, []byte(`
[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = admin
[sso-session corp]
sso_region = eu-west-1
sso_start_url = https://corp.example/start
[profile program]
credential_process = /bin/false
[profile empty]
`), 0o666); err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]string{
		"sso":     "the configured credentials cannot be retrieved: failed to read cached SSO token file",
		"program": "the configured credentials cannot be retrieved: process provider error: error in credential_process: exit status 1; log in again",
		"empty":   "no credentials found in the environment, in a profile (--profile) or from a role",
	} {
		t.Run(profile, func(t *testing.T) {
			c, err := Dial(context.Background(), account.Access{Profile: profile, Endpoint: f.url}, false, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Status(context.Background(), "chat", 0); err == nil || !strings.HasPrefix(err.Error(), "endpoint chat: "+want) {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
}
