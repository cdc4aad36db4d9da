//go:build !linux

package budget

import (
	"errors"
	"fmt"
)

func sinceBoot() uint64 { return 0 }

func openPlace(string, int) (*place, error) {
	return nil, fmt.Errorf("budget: a budget of the host: %w", errors.ErrUnsupported)
}
