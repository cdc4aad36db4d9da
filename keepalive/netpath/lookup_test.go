package netpath_test

import (
	"strings"
	"testing"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestEveryProfileIsFoundByItsName(t *testing.T) {
	for p := range netpath.All() {
		got, err := netpath.Lookup(p.Name)
		if err != nil || got.String() != p.String() {
			t.Errorf("%s: got %v, %v", p.Name, got, err)
		}
	}
}

func TestAllStopsWhenAsked(t *testing.T) {
	n := 0
	for range netpath.All() {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("got %d", n)
	}
}

func TestAnUnknownNameIsAnErrorThatListsCloseOnes(t *testing.T) {
	_, err := netpath.Lookup("aws-nat")
	if err == nil || !strings.Contains(err.Error(), `"aws-nat"`) || !strings.Contains(err.Error(), "aws-nat-gateway") {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), "openbsd-pf") {
		t.Errorf("openbsd-pf is not close: %v", err)
	}
	if _, err := netpath.Lookup(""); err == nil || !strings.Contains(err.Error(), "openbsd-pf") {
		t.Errorf("with nothing close, all should be listed: %v", err)
	}
}
