package redisbudget

import (
	"testing"

	"github.com/natwise/natwise/internal/doctest"
)

func TestWhatTheDocumentationShowsCompiles(t *testing.T) { doctest.Check(t) }
