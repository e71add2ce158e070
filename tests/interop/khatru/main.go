// A relay by the author of nak, of the parts that `nak serve` is made of: khatru, and events in memory. What is here only
// reads arguments and files, and says who may do what: the protocol is all theirs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"

	"github.com/fiatjaf/eventstore/slicestore"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
)

func main() {
	negentropy := flag.Bool("negentropy", false, "speak NIP-77")
	auth := flag.Bool("auth", false, "serve and take nothing before it is known who asks (NIP-42)")
	eagerAuth := flag.Bool("eager-auth", false, "ask who is there as soon as somebody connects")
	maxLimit := flag.Int("max-limit", math.MaxInt32, "the most events that one filter brings")
	events := flag.String("events", "", "a file of events to begin with, one in a line")
	flag.Parse()
	if err := serve(*negentropy, *auth, *eagerAuth, *maxLimit, *events); err != nil {
		fmt.Fprintln(os.Stderr, "khatru-relay:", err)
		os.Exit(1)
	}
}

// store keeps writers apart: khatru handles the messages of a connection at the same time, and this store's SaveEvent and
// DeleteEvent do not lock, so that of two events at once one is lost although both were accepted.
type store struct{ *slicestore.SliceStore }

func (s store) save(ctx context.Context, event *nostr.Event) error {
	s.Lock()
	defer s.Unlock()
	return s.SaveEvent(ctx, event)
}

func (s store) remove(ctx context.Context, event *nostr.Event) error {
	s.Lock()
	defer s.Unlock()
	return s.DeleteEvent(ctx, event)
}

func serve(negentropy, auth, eagerAuth bool, maxLimit int, events string) error {
	db := store{&slicestore.SliceStore{MaxLimit: maxLimit}}
	if err := db.Init(); err != nil {
		return err
	}
	if events != "" {
		if err := db.load(events); err != nil {
			return err
		}
	}

	relay := khatru.NewRelay()
	relay.Negentropy = negentropy
	relay.QueryEvents = append(relay.QueryEvents, db.QueryEvents)
	relay.CountEvents = append(relay.CountEvents, db.CountEvents)
	relay.DeleteEvent = append(relay.DeleteEvent, db.remove)
	relay.StoreEvent = append(relay.StoreEvent, db.save)
	relay.ReplaceEvent = append(relay.ReplaceEvent, db.ReplaceEvent)
	if eagerAuth {
		relay.OnConnect = append(relay.OnConnect, khatru.RequestAuth)
	}
	if auth || eagerAuth {
		const who = "auth-required: you must be authenticated to perform this action"
		isStranger := func(ctx context.Context) bool {
			return khatru.GetAuthed(ctx) == "" && !khatru.IsInternalCall(ctx)
		}
		relay.RejectFilter = append(relay.RejectFilter, func(ctx context.Context, _ nostr.Filter) (bool, string) {
			return isStranger(ctx), who
		})
		relay.RejectEvent = append(relay.RejectEvent, func(ctx context.Context, _ *nostr.Event) (bool, string) {
			return isStranger(ctx), who
		})
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening ws://%s\n", listener.Addr())
	go http.Serve(listener, relay)
	// It ends with its standard input.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (s store) load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event nostr.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return err
		}
		write := s.save
		if !nostr.IsRegularKind(event.Kind) {
			write = s.ReplaceEvent
		}
		if err := write(context.Background(), &event); err != nil {
			return fmt.Errorf("%s: %w", event.ID, err)
		}
	}
	return lines.Err()
}
