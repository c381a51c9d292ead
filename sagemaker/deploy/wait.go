package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// sayEvery is how long an unchanged status is kept quiet about.
const sayEvery = 30 * time.Second

// await waits until the endpoint serves the configuration of r, and says how it
// goes. Ending ctx ends the waiting only.
func (c *Client) await(ctx context.Context, s *Spec, r requests, began time.Time) error {
	config := *r.config.EndpointConfigName
	var said time.Time
	var last types.EndpointStatus
	changing := false // whether it has been seen changing
	for looks := 1; ; looks++ {
		e, err := c.endpoint(ctx, s.Name)
		switch {
		case ctx.Err() != nil:
			return stopped(s.Name, last)
		case err != nil:
			return fmt.Errorf("%w; the deployment continues without: the same deploy waits again", err)
		case e == nil && looks > 3: // before that, not every part of AWS may know it
			return fmt.Errorf("endpoint %s: was deleted while it was waited for", s.Name)
		}
		if e != nil {
			seconds := int(time.Since(began).Seconds())
			if e.EndpointStatus != last || time.Since(said) >= sayEvery {
				c.Say("endpoint %s: %s, %d s%s", s.Name, e.EndpointStatus, seconds, instances(e))
				last, said = e.EndpointStatus, time.Now()
			}
			changing = changing || !settled(e.EndpointStatus)
			serves := e.EndpointStatus == types.EndpointStatusInService
			switch {
			case serves && aws.ToString(e.EndpointConfigName) == config:
				c.Say("endpoint %s: in service after %d s; try: millrace sagemaker invoke %s 'Hello'", s.Name, seconds, s.Name)
				return nil
			case settled(e.EndpointStatus) && (!serves || changing || looks > 3):
				return c.failure(ctx, s, e)
			}
		}
		if !account.Sleep(ctx, c.Poll) {
			return stopped(s.Name, last)
		}
	}
}

func stopped(name string, last types.EndpointStatus) error {
	was := ""
	if last != "" {
		was = ", last seen " + string(last) + ","
	}
	return fmt.Errorf("stopped waiting; endpoint %s%s continues without: `millrace sagemaker status %s` shows it, the same deploy waits again, `millrace sagemaker delete %s` deletes it", name, was, name, name)
}

// instances says how many instances there are of how many, where that is known.
func instances(e *sagemaker.DescribeEndpointOutput) string {
	for _, v := range e.ProductionVariants {
		if v.DesiredInstanceCount != nil {
			return fmt.Sprintf(", %d of %d instances", aws.ToInt32(v.CurrentInstanceCount), *v.DesiredInstanceCount)
		}
	}
	return ""
}
