// The reverse proxy that one would write in Go instead: net/http/httputil behind an HMAC-SHA512 check of the raw body.
//
//	goproxy LISTEN UPSTREAM-URL KEY
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

const maxBody = 32 << 20

func main() {
	key := []byte(os.Args[3])
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(upstream)
	forward.Transport = &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024}
	verify := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "", http.StatusRequestEntityTooLarge)
			return
		}
		mac := hmac.New(sha512.New, key)
		mac.Write(body)
		sent, err := hex.DecodeString(r.Header.Get("X-Signature"))
		if err != nil || !hmac.Equal(sent, mac.Sum(nil)) {
			http.Error(w, `{"detail":"Validation Failure"}`, http.StatusForbidden)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(verify)))
}
