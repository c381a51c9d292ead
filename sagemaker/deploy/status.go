package deploy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
)

// Status is how an endpoint is.
type Status struct {
	Name     string    `json:"name"`
	Region   string    `json:"region"`
	Status   string    `json:"status"`
	Failure  string    `json:"last_failure,omitempty"`
	Created  time.Time `json:"created"`
	Deployed time.Time `json:"deployed"` // the last change
	Config   string    `json:"config"`
	Async    string    `json:"async_output,omitempty"`
	Variants []Variant `json:"variants"`
	Notes    []string  `json:"notes,omitempty"` // what could not be found out, and why
	Log      []string  `json:"log,omitempty"`
}

// Variant is one of an endpoint's variants: production, or its shadow.
type Variant struct {
	Name      string      `json:"name"`
	Instance  string      `json:"instance_type,omitempty"` // several in the order in which they are tried
	Instances int32       `json:"instances"`
	Desired   int32       `json:"desired_instances"`
	Size      *Serverless `json:"serverless,omitempty"`
	Progress  string      `json:"progress,omitempty"`
	Model     string      `json:"model"`
	Weights   string      `json:"model_data,omitempty"`
	Image     string      `json:"image"`
	Resolved  string      `json:"resolved_image,omitempty"`
	LastHour  *Traffic    `json:"last_hour,omitempty"`
}

// Traffic is what CloudWatch has counted.
type Traffic struct {
	Invocations   float64 `json:"invocations"`
	ClientErrors  float64 `json:"errors_4xx"`
	ServerErrors  float64 `json:"errors_5xx"`
	MeanLatencyMS float64 `json:"mean_latency_ms"` // of the container
	MostLatencyMS float64 `json:"max_latency_ms"`
}

// Status finds out how the endpoint called name is, with the last logLines
// lines of its log. What the caller has no permission for becomes a note.
func (c *Client) Status(ctx context.Context, name string, logLines int) (*Status, error) {
	e, err := c.endpoint(ctx, name)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, fmt.Errorf("there is no endpoint %s in %s; another region: --region", name, c.Region())
	}
	s := &Status{
		Name: name, Region: c.Region(), Status: string(e.EndpointStatus), Failure: aws.ToString(e.FailureReason),
		Created: aws.ToTime(e.CreationTime), Deployed: aws.ToTime(e.LastModifiedTime), Config: aws.ToString(e.EndpointConfigName),
	}
	if a := e.AsyncInferenceConfig; a != nil && a.OutputConfig != nil {
		s.Async = aws.ToString(a.OutputConfig.S3OutputPath)
	}
	config, err := c.config(ctx, s.Config)
	if err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	if config != nil {
		for _, v := range slices.Concat(config.ProductionVariants, config.ShadowProductionVariants) {
			types := []string{string(v.InstanceType)}
			for _, pool := range v.InstancePools {
				types = append(types, string(pool.InstanceType))
			}
			row := Variant{Name: aws.ToString(v.VariantName), Instance: strings.TrimPrefix(strings.Join(types, ", "), ", "), Model: aws.ToString(v.ModelName), Desired: aws.ToInt32(v.InitialInstanceCount)}
			if size := v.ServerlessConfig; size != nil {
				row.Size = &Serverless{MemoryMB: aws.ToInt32(size.MemorySizeInMB), MaxConcurrency: aws.ToInt32(size.MaxConcurrency)}
			}
			s.Variants = append(s.Variants, row)
		}
	}
	for i := range s.Variants {
		v := &s.Variants[i]
		v.running(e)
		if err := c.describeModel(ctx, v); err != nil {
			s.Notes = append(s.Notes, err.Error())
		}
		if v.LastHour, err = c.traffic(ctx, name, v.Name); err != nil {
			s.Notes = append(s.Notes, err.Error())
		}
	}
	if logLines > 0 {
		if s.Log, err = c.LastLines(ctx, logGroup(name), logLines, s.Created); err != nil {
			s.Notes = append(s.Notes, err.Error())
		}
	}
	return s, nil
}

// running fills in what the endpoint itself says of the variant.
func (v *Variant) running(e *sagemaker.DescribeEndpointOutput) {
	for _, r := range slices.Concat(e.ProductionVariants, e.ShadowProductionVariants) {
		if aws.ToString(r.VariantName) != v.Name {
			continue
		}
		v.Instances = aws.ToInt32(r.CurrentInstanceCount)
		if r.DesiredInstanceCount != nil {
			v.Desired = *r.DesiredInstanceCount
		}
		for _, image := range r.DeployedImages {
			v.Resolved = aws.ToString(image.ResolvedImage)
		}
		for _, status := range r.VariantStatus {
			v.Progress = string(status.Status)
			if m := aws.ToString(status.StatusMessage); m != "" {
				v.Progress += ": " + m
			}
		}
	}
}

func (c *Client) describeModel(ctx context.Context, v *Variant) error {
	m, err := c.model(ctx, v.Model)
	if err != nil || m == nil || m.PrimaryContainer == nil {
		return err
	}
	v.Image = aws.ToString(m.PrimaryContainer.Image)
	v.Weights = aws.ToString(m.PrimaryContainer.ModelDataUrl)
	if source := m.PrimaryContainer.ModelDataSource; source != nil && source.S3DataSource != nil {
		v.Weights = aws.ToString(source.S3DataSource.S3Uri)
	}
	if v.Weights == "" {
		v.Weights = m.PrimaryContainer.Environment["MODEL_ID"]
	}
	return nil
}

// traffic asks CloudWatch for the last hour of a variant.
func (c *Client) traffic(ctx context.Context, endpoint, variant string) (*Traffic, error) {
	queries := []struct{ id, metric, stat string }{
		{"invocations", "Invocations", "Sum"},
		{"client", "Invocation4XXErrors", "Sum"},
		{"server", "Invocation5XXErrors", "Sum"},
		{"sum", "ModelLatency", "Sum"},
		{"samples", "ModelLatency", "SampleCount"},
		{"most", "ModelLatency", "Maximum"},
	}
	now := time.Now()
	in := &cloudwatch.GetMetricDataInput{StartTime: aws.Time(now.Add(-time.Hour)), EndTime: &now}
	for _, q := range queries {
		in.MetricDataQueries = append(in.MetricDataQueries, cwtypes.MetricDataQuery{
			Id: &q.id,
			MetricStat: &cwtypes.MetricStat{
				Metric: &cwtypes.Metric{Namespace: aws.String("AWS/SageMaker"), MetricName: &q.metric, Dimensions: []cwtypes.Dimension{
					{Name: aws.String("EndpointName"), Value: &endpoint}, {Name: aws.String("VariantName"), Value: &variant},
				}},
				Period: aws.Int32(60), Stat: &q.stat,
			},
		})
	}
	out, err := c.metrics.GetMetricData(ctx, in)
	if err != nil {
		return nil, c.explain(err, "the metrics of "+endpoint)
	}
	sum, most := map[string]float64{}, 0.0
	for _, result := range out.MetricDataResults {
		for _, value := range result.Values {
			sum[aws.ToString(result.Id)] += value
			if aws.ToString(result.Id) == "most" {
				most = max(most, value)
			}
		}
	}
	const microseconds = 1000.0 // in a millisecond
	t := &Traffic{Invocations: sum["invocations"], ClientErrors: sum["client"], ServerErrors: sum["server"], MostLatencyMS: most / microseconds}
	if n := sum["samples"]; n > 0 {
		t.MeanLatencyMS = sum["sum"] / n / microseconds
	}
	return t, nil
}

// Write writes the status as a table, then notes and log.
func (s *Status) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("endpoint", "%s in %s", s.Name, s.Region)
	row("status", "%s", s.Status)
	row("last failure", "%s", s.Failure)
	row("created", "%s", s.Created.UTC().Format(time.RFC3339))
	row("deployed", "%s", s.Deployed.UTC().Format(time.RFC3339))
	row("configuration", "%s", s.Config)
	row("async answers", "%s", s.Async)
	for _, v := range s.Variants {
		row("variant", "%s", v.Name)
		if v.Size != nil {
			row("  serverless", "%d MB, up to %d at a time", v.Size.MemoryMB, v.Size.MaxConcurrency)
		} else {
			row("  instances", "%d of %d %s", v.Instances, v.Desired, v.Instance)
		}
		row("  progress", "%s", v.Progress)
		row("  model", "%s", v.Model)
		row("  model data", "%s", v.Weights)
		row("  image", "%s", v.Image)
		row("  resolved to", "%s", v.Resolved)
		if t := v.LastHour; t != nil {
			row("  last hour", "%.0f calls, %.0f refused (4xx), %.0f failed (5xx), %.0f ms mean, %.0f ms longest",
				t.Invocations, t.ClientErrors, t.ServerErrors, t.MeanLatencyMS, t.MostLatencyMS)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, note := range s.Notes {
		fmt.Fprintln(out, "#", note)
	}
	for _, line := range s.Log {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
