package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// kind is a kind of build, and how long it was seen to take.
type kind struct {
	name       string
	cold, warm []time.Duration
}

// maxSeconds bounds a recorded time: a week.
const maxSeconds = 7 * 24 * 3600

// parseTimes reads the recorded times, in the order of the file. Each kind has
// at least one time of each state, or the error says which lacks it.
func parseTimes(text string) ([]kind, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return nil, err
	}
	var kinds []kind
	at := map[string]int{}
	for i, row := range rows {
		if i == 0 {
			continue // the head
		}
		if len(row) < 3 {
			return nil, fmt.Errorf("line %d has fewer than 3 fields", i+1)
		}
		seconds, err := strconv.ParseFloat(row[2], 64)
		if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > maxSeconds {
			return nil, fmt.Errorf("line %d: %q is no number of seconds", i+1, row[2])
		}
		k, ok := at[row[0]]
		if !ok {
			k, at[row[0]] = len(kinds), len(kinds)
			kinds = append(kinds, kind{name: row[0]})
		}
		d := time.Duration(seconds * float64(time.Second))
		switch row[1] {
		case "cold":
			kinds[k].cold = append(kinds[k].cold, d)
		case "warm":
			kinds[k].warm = append(kinds[k].warm, d)
		default:
			return nil, fmt.Errorf("line %d: %q is neither cold nor warm", i+1, row[1])
		}
	}
	for _, k := range kinds {
		if len(k.cold) == 0 || len(k.warm) == 0 {
			return nil, fmt.Errorf("%s is not there both cold and warm", k.name)
		}
	}
	if len(kinds) == 0 {
		return nil, fmt.Errorf("no times")
	}
	return kinds, nil
}
