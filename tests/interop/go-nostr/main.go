// Command go-nostr-sync reconciles the events of a file with a relay, by go-nostr's nip77.
//
//	go-nostr-sync sync URL FILE [--dump FILE] [--passes N] [--timeout DURATION]
//
// What is here only reads arguments and files and keeps the events: the protocol is all go-nostr's.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77"
)

const usage = "usage: go-nostr-sync sync URL FILE [--dump FILE] [--passes N] [--timeout DURATION]"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "go-nostr-sync:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 || args[0] != "sync" {
		return errors.New(usage)
	}
	url, file := args[1], args[2]
	flags := flag.NewFlagSet("sync", flag.ContinueOnError)
	dump := flags.String("dump", "", "write the ids of the local events here, sorted")
	passes := flags.Int("passes", 1, "how often to reconcile: the README tells when once is not enough")
	timeout := flags.Duration("timeout", time.Minute, "for everything")
	if err := flags.Parse(args[3:]); err != nil {
		return err
	}
	if flags.NArg() > 0 || *passes < 1 {
		return errors.New(usage)
	}

	local, err := load(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()

	for range *passes {
		if err := reconcile(ctx, local, url); err != nil {
			return err
		}
	}

	ids := slices.Sorted(maps.Keys(local.events))
	if *dump != "" {
		if err := os.WriteFile(*dump, []byte(strings.Join(append(ids, ""), "\n")), 0o644); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Sent     int `json:"sent"` // handed to the relay: go-nostr does not tell whether it took them
		Received int `json:"received"`
		Local    int `json:"local"`
	}{len(local.sent), local.received, len(ids)})
}

// reconcile is one NegentropySync, which does not itself end with its context.
func reconcile(ctx context.Context, local *store, url string) error {
	result := make(chan error, 1)
	go func() { result <- nip77.NegentropySync(ctx, local, url, nostr.Filter{}) }()
	select {
	case err := <-result:
		// an upload that the deadline cut short is no error to NegentropySync
		return errors.Join(err, ctx.Err())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// store is a set of events: nothing in it replaces or deletes anything.
type store struct {
	mutex    sync.Mutex
	events   map[string]nostr.Event
	sent     map[string]struct{}
	received int
}

var _ nostr.RelayStore = (*store)(nil)

func load(path string) (*store, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &store{events: map[string]nostr.Event{}, sent: map[string]struct{}{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for number := 1; lines.Scan(); number++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var event nostr.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		s.events[event.ID] = event
	}
	return s, lines.Err()
}

// Publish is how NegentropySync hands over what the relay had.
func (s *store) Publish(_ context.Context, event nostr.Event) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, known := s.events[event.ID]; !known {
		s.events[event.ID] = event
		s.received++
	}
	return nil
}

// QueryEvents is how NegentropySync fetches what the relay lacks.
func (s *store) QueryEvents(ctx context.Context, filter nostr.Filter) (chan *nostr.Event, error) {
	events, err := s.QuerySync(ctx, filter)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := make(chan *nostr.Event, len(events))
	for _, event := range events {
		s.sent[event.ID] = struct{}{}
		answer <- event
	}
	close(answer)
	return answer, nil
}

// QuerySync is how NegentropySync learns what there is to reconcile.
func (s *store) QuerySync(_ context.Context, filter nostr.Filter) ([]*nostr.Event, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var matching []*nostr.Event
	for _, event := range s.events {
		if filter.Matches(&event) {
			matching = append(matching, &event)
		}
	}
	return matching, nil
}
