package main

import (
	"bytes"
	"fmt"
	"io"
	"io/ioutil"
	"net/http"
	"os/exec"
)

// keepStream takes a disk as it comes into the folder for work, where it is measured how fast somebody sends it: nothing is looked
// into or decoded, and its sum is taken by a program that is fast at it.
func (s *server) keepStream(r *http.Request) (*sums, error) {
	file, err := ioutil.TempFile(s.work, "*.stream")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var said bytes.Buffer
	digest := exec.Command("openssl", "dgst", "-sha256", "-r")
	digest.Stdout = &said
	in, err := digest.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := digest.Start(); err != nil {
		return nil, err
	}
	size, err := io.CopyBuffer(io.MultiWriter(file, in), r.Body, make([]byte, 1<<20))
	in.Close()
	if ended := digest.Wait(); err == nil {
		err = ended
	}
	if err != nil {
		return nil, err
	}
	sum := &sums{size: size}
	_, err = fmt.Fscan(&said, &sum.sha256)
	return sum, err
}
