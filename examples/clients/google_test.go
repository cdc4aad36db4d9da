package clients_test

import (
	"net/http"
	"testing"

	"cloud.google.com/go/auth/credentials"
	"google.golang.org/api/oauth2/v2"
	"google.golang.org/api/option"

	"github.com/natwise/natwise/examples/clients"
)

func TestARequestOfGoogleHasATokenThatCameOverTheSameConnection(t *testing.T) {
	o := newOrigin(t)
	fakeAccounts(t, o.URL)
	var sent string
	o.answers(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Authorization")
		w.Write([]byte("{}"))
	})
	with, err := clients.Google(newTransport(t, behindNAT(4)), credentials.DetectOptions{Scopes: []string{oauth2.OpenIDScope}})
	if err != nil {
		t.Fatal(err)
	}
	service, err := oauth2.NewService(t.Context(), with, option.WithEndpoint(o.URL))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Userinfo.Get().Do(); err != nil {
		t.Fatal(err)
	}
	if opened := o.opened.Load(); sent != "Bearer fake" || opened != 1 {
		t.Errorf("sent %q, over %d connections", sent, opened)
	}
}
