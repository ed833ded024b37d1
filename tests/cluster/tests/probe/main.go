// The program in the image of the tests: `probe serve` answers GET / with the name of its pod, `probe get URL` prints
// such an answer, `probe lookup NAME` prints the addresses of a name.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "serve":
		serve()
	case "get":
		client := http.Client{Timeout: 5 * time.Second}
		response, err := client.Get(os.Args[2])
		end(err)
		body, err := io.ReadAll(response.Body)
		end(err)
		fmt.Printf("%d %s\n", response.StatusCode, body)
	case "lookup":
		addresses, err := net.LookupHost(os.Args[2])
		end(err)
		for _, address := range addresses {
			fmt.Println(address)
		}
	}
}

func serve() {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		<-terminate
		os.Exit(0)
	}()
	name, err := os.Hostname()
	end(err)
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		fmt.Printf("asked for %s\n", request.URL.Path)
		fmt.Fprint(answer, name)
	})
	fmt.Println("serving")
	end(http.ListenAndServe(":8080", nil))
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
